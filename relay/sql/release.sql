-- Gives shards back. $1 deployment, $2 session, $3 shards, $4 their epochs, in the same order.
select annals.relay_release($1, $2, $3, $4)
