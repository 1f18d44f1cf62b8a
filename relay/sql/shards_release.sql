-- Releases shards. $1 deployment, $2 session, $3 shards, $4 their epochs, in the same order.
select annals.relay_release_shards($1, $2, $3, $4)
