-- The events of a large window between two positions, in position order.
-- $1 snapshot at its begin, $2 snapshot at its end, $3 shards, $4 position after which the page begins,
-- $5 its last position. No row: nothing between them became visible in this window.
-- The range stands on both tables: that makes it a merge join of two ordered scans.
select
    e.position, o.shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint, e.recorded_at,
    e.payload, e.metadata, e.headers
from annals.outbox o
join annals.events e on e.position = o.position
where o.position > $4 and o.position <= $5 and e.position > $4 and e.position <= $5
and pg_visible_in_snapshot(o.xid, $2::pg_snapshot) and not pg_visible_in_snapshot(o.xid, $1::pg_snapshot)
and o.shard = any ($3)
order by o.position
