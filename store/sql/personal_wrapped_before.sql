-- Keys that were wrapped before an epoch. $1 epoch, $2 the number of rows.
select subject, key_id, wrapped
from annals.personal_keys
where epoch < $1 and wrapped is not null
order by subject
limit $2
