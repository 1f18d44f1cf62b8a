-- Prolongs the session's lease and reads all leases: a row for each shard.
-- $1 deployment, $2 session, $3 whether it can take shards, $4 lease in milliseconds.
-- No row: there is no such session any more.
select shard, epoch, is_mine, is_free, members, rank
from annals.relay_look($1, $2, $3, $4 * interval '1 millisecond')
