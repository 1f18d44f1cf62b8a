-- The events of one stream in a window, in version order, which is position order.
-- $1 snapshot at its begin, $2 snapshot at its end, $3 stream, $4 position after which to begin, $5 most rows.
-- Fewer rows than asked for: the window has no more of them.
select
    e.position, annals.shard_of(e.stream) as shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint,
    e.recorded_at, e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from annals.events e
where e.stream = $3 and e.position > $4
and (
    e.xid < (select pg_snapshot_xmin($2::pg_snapshot))
    or pg_visible_in_snapshot(e.xid, (select $2::pg_snapshot))
)
and (
    e.xid >= (select pg_snapshot_xmax($1::pg_snapshot))
    or not pg_visible_in_snapshot(e.xid, (select $1::pg_snapshot))
)
order by e.version
limit $5
