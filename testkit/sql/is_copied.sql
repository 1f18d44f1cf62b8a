-- Whether a checkpoint of each deployment here has come to the end of the log.
select bool_and(c.position >= (select max(position) from annals.events)) is true
from (select deployment, max(position) as position from annals.relay_checkpoints group by deployment) c
