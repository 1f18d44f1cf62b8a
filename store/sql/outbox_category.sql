-- The events of one category and one shard in a window, in position order.
-- $1 snapshot at its begin, $2 snapshot at its end, $3 category, $4 shard, $5 position after which to begin, $6 most rows.
-- Fewer rows than asked for: the window has no more of them.
select
    e.position, annals.shard_of(e.stream) as shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint,
    e.recorded_at, e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from annals.events e
where e.category = $3 and e.position > $5 and annals.shard_of(e.stream) = $4
and (
    e.xid < (select pg_snapshot_xmin($2::pg_snapshot))
    or pg_visible_in_snapshot(e.xid, (select $2::pg_snapshot))
)
and (
    e.xid >= (select pg_snapshot_xmax($1::pg_snapshot))
    or not pg_visible_in_snapshot(e.xid, (select $1::pg_snapshot))
)
order by e.position
limit $6
