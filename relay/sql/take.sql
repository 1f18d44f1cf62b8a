-- Takes free shards: a row for each that it got. $1 deployment, $2 session, $3 shards.
select shard, epoch from annals.relay_take($1, $2, $3)
