-- Renews the session's lease and reads all leases: one row for each shard.
-- $1 deployment, $2 session, $3 whether it can acquire shards, $4 lease in milliseconds.
-- No row: the session does not exist any more.
select shard, epoch, is_mine, is_free, members, rank
from annals.relay_renew_lease($1, $2, $3, $4 * interval '1 millisecond')
