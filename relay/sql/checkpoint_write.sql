-- Writes checkpoints where PostgreSQL is where they stand. $1 deployment, $2 session, $3 shards, $4 their epochs, $5 number of this
-- step, $6 incarnation of the database that the checkpoints are of, $7 positions, $8 checkpoints, in the same order. One row:
-- false if one of the leases is lost, or the database is another, or it comes too late.
select annals.relay_checkpoint($1, $2, $3, $4, $5, $6, $7, $8) as is_written
