-- The events of a large window between two positions, in position order.
-- $1 snapshot at its begin, $2 snapshot at its end, $3 shards, $4 position after which the page begins,
-- $5 its last position. No row: nothing between them became visible in this window.
-- Read from the events alone: the outbox has no rows any more where its partitions were dropped.
--
-- A snapshot's ends are compared first, since in a large window they decide for nearly every row. In subselects
-- they are worked out once, not for each row.
select
    e.position, annals.shard_of(e.stream) as shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint,
    e.recorded_at, e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from annals.events e
where e.position > $4 and e.position <= $5
and (
    e.xid < (select pg_snapshot_xmin($2::pg_snapshot))
    or pg_visible_in_snapshot(e.xid, (select $2::pg_snapshot))
)
and (
    e.xid >= (select pg_snapshot_xmax($1::pg_snapshot))
    or not pg_visible_in_snapshot(e.xid, (select $1::pg_snapshot))
)
and annals.shard_of(e.stream) = any ($3)
order by e.position
