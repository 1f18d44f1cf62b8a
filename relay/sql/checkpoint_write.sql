-- Writes checkpoints where PostgreSQL is where they stand. $1 deployment, $2 session, $3 shards, $4 their epochs, $5 positions,
-- $6 checkpoints, in the same order. One row: false if one of the leases is lost.
select annals.relay_checkpoint($1, $2, $3, $4, $5, $6) as is_written
