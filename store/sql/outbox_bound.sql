-- Where the log stands now: one row, the end of a window.
--
-- `next_xid` is the next transaction id that the cluster will give out, read after the snapshot and
-- without using one up. A snapshot's xmax is not that: it is one above the last *completed* id, and
-- transactions above it may run already. age() counts from the next id, modulo 2^32.
select
    snapshot::text as snapshot,
    xmax + mod(mod(3 + age('3'::xid)::bigint - xmax, 4294967296) + 4294967296, 4294967296) as next_xid,
    coalesce((select max(position) from annals.events), 0) as position,
    (select system_identifier from pg_control_system())::text as system_identifier,
    substring(pg_walfile_name(pg_current_wal_insert_lsn()) for 8) as timeline
from (select s.snapshot, pg_snapshot_xmax(s.snapshot)::text::bigint as xmax from pg_current_snapshot() s (snapshot)) now
