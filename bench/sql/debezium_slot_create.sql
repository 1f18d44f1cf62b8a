-- Makes a replication slot: what is written from now on is kept for it.
-- $1 its name.
select 1 from pg_create_logical_replication_slot($1, 'pgoutput')
