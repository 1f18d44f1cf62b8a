-- Writes checkpoints in at-least-once delivery, which has none in Kafka.
-- $1 deployment, $2 session, $3 shards, $4 their epochs, $5 number of this write, $6 incarnation of
-- the database that the checkpoints are of, $7 positions, $8 checkpoints, in the same order.
-- One row: false if a lease is lost, the database is another one, or a later write was admitted
-- before.
select annals.relay_write_checkpoints($1, $2, $3, $4, $5, $6, $7, $8) as is_written
