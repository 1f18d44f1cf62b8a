-- Reads the server's counters: the log's records, whole pages and bytes, and the blocks of all
-- tables and indexes here that were not found in its memory; and the time. Always one row.
select
    clock_timestamp()::text as at, w.wal_records, w.wal_fpi, w.wal_bytes::bigint as wal_bytes,
    (
        select coalesce(sum(t.heap_blks_read + coalesce(t.idx_blks_read, 0)), 0)::bigint
        from pg_statio_user_tables t where t.schemaname = 'annals'
    ) as blocks_read
from pg_stat_wal w
