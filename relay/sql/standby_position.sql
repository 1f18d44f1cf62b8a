-- Whether a standby has flushed the WAL up to a position. $1 WAL position; null: the current one,
-- $2 the names of the standbys that count; empty: every physical standby.
-- One row: the position, whether a standby has flushed it, and whether the user may know
-- (pg_read_all_stats).
-- Other walsenders are no standbys: a logical subscriber has a logical slot, and what only keeps
-- WAL (a base backup that streams it, pg_receivewal) reports no position that it has replayed.
with wal as materialized (select coalesce($1::pg_lsn, pg_current_wal_insert_lsn()) as lsn)
select
    wal.lsn::text as lsn,
    exists (
        select from pg_stat_replication s
        where s.flush_lsn >= wal.lsn and s.state = 'streaming'
            and s.replay_lsn is not null
            and (cardinality($2::text[]) = 0 or s.application_name = any ($2))
            and not exists (
                select from pg_replication_slots r where r.active_pid = s.pid and r.slot_type = 'logical'
            )
    ) as is_flushed,
    pg_has_role('pg_read_all_stats', 'usage') as may_know
from wal
