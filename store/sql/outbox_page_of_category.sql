-- The events of one category and one shard in a window and between two positions, in position
-- order.
-- $1 snapshot, $2 position, $3 settled position at its start; $4 snapshot, $5 position, $6 settled
-- position at its end; $7 position to start after, $8 last position, $9 category, $10 shard,
-- $11 maximum number of rows.
-- Fewer rows than the limit: all between these positions.
select
    e.position, annals.shard_of(e.stream) as shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint,
    e.recorded_at, e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from annals.events e
where (e.category, e.position) > ($9, $7) and (e.category, e.position) <= ($9, least($8::bigint, $5::bigint))
and annals.shard_of(e.stream) = $10
and (
    e.xid < (select pg_snapshot_xmin($4::pg_snapshot))
    or e.position <= $6
    or pg_visible_in_snapshot(e.xid, (select $4::pg_snapshot))
)
and (
    e.position > $2
    or e.position > $3 and not pg_visible_in_snapshot(e.xid, (select $1::pg_snapshot))
)
order by e.category, e.position
limit $11
