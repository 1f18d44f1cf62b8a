-- The events of a window between two positions, in position order.
-- $1 snapshot, $2 position, $3 settled position at its start; $4 snapshot, $5 position, $6 settled
-- position at its end; $7 position after which the page begins, $8 its last position, $9 shards.
-- No row: the window has no events between them.
-- Reads the events only: dropped partitions of the outbox have no rows.
--
-- The conditions are those of annals.is_visible_at, written out: the condition that decides for
-- nearly all rows comes first, and subselects are evaluated once instead of once per row.
select
    e.position, annals.shard_of(e.stream) as shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint,
    e.recorded_at, e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from annals.events e
where e.position > $7 and e.position <= least($8::bigint, $5::bigint)
and (
    e.xid < (select pg_snapshot_xmin($4::pg_snapshot))
    or e.position <= $6
    or pg_visible_in_snapshot(e.xid, (select $4::pg_snapshot))
)
and (
    e.position > $2
    or e.position > $3 and not pg_visible_in_snapshot(e.xid, (select $1::pg_snapshot))
)
and annals.shard_of(e.stream) = any ($9)
order by e.position
