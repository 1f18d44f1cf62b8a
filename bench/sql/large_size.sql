-- Bytes of the events and of their indexes. Always one row.
select pg_table_size('annals.events') as events, pg_indexes_size('annals.events') as indexes
