-- Acquires free shards: one row for each acquired one. $1 deployment, $2 session, $3 shards.
select shard, epoch from annals.relay_acquire_shards($1, $2, $3)
