-- Above the ids of all transactions that have ended.
select pg_snapshot_xmax(pg_current_snapshot())::text::bigint
