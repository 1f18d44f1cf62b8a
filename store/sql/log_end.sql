-- Reads the current end of the log, and the history of the store: one row.
--
-- `next_xid` is the next transaction id that the cluster will assign, read after the snapshot and
-- without consuming one. The snapshot's xmax differs: it is one above the last *completed* id, and
-- transactions above it can be running. age() counts from the next id, modulo 2^32. `cluster` is
-- the cluster of this session, `system_identifier` the cluster that the store belongs to.
select
    snapshot::text as snapshot,
    now.xmax + mod(mod(3 + age('3'::xid)::bigint - now.xmax, 4294967296) + 4294967296, 4294967296) as next_xid,
    coalesce(last.position, 0) as position, last.event_id,
    i.settled, i.store_id, i.history, i.system_identifier,
    annals.system_identifier() as cluster,
    substring(pg_walfile_name(pg_current_wal_insert_lsn()) for 8) as timeline,
    annals.incarnation() as incarnation
from
    (select s.snapshot, pg_snapshot_xmax(s.snapshot)::text::bigint as xmax from pg_current_snapshot() s (snapshot)) now,
    annals.identity i
    left join lateral (
        select e.position, e.event_id from annals.events e order by e.position desc limit 1
    ) last on true
where i.is_only
