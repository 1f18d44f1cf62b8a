-- The checkpoints that PostgreSQL has, as one text that differs when anything in them differs.
select coalesce(string_agg(format('%s %s %s %s', deployment, shard, position, checkpoint), E'\n' order by deployment, shard), '')
from annals.relay_checkpoints
