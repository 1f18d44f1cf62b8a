-- Quarantines streams and categories.
-- $1 deployment, $2 session, $3 shards, $4 their epochs, $5 number of this write, $6 incarnation of
-- the database that the cursors are of, $7 committed cursors of the shards, $8 what to quarantine
-- and why.
-- One row: false if a lease is lost, the database is another one, or a later write was admitted
-- before.
select annals.relay_add_to_quarantine($1, $2, $3, $4, $5, $6, $7, $8) as is_written
