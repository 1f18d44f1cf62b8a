-- The events of one category and one shard in a window and between two positions, in position
-- order.
-- $1 snapshot, $2 position, $3 settled position at its start; $4 snapshot, $5 position, $6 settled
-- position at its end; $7 position to start after, $8 last position, $9 category, $10 shard,
-- $11 maximum number of rows.
-- Fewer rows than the limit: all between these positions.
-- With the row comparison the planner can only use the index with this order. A row comparison as
-- upper bound would not end the scan before the end of the category: hence the limit inside. No
-- more events of a category are between two positions than there are positions.
select
    e.position, annals.shard_of(e.stream) as shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint,
    e.recorded_at, e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from (
    select
        n.position, n.stream, n.version, n.event_id, n.category, n.event_type, n.fingerprint, n.recorded_at, n.payload,
        n.metadata, n.headers, n.xid
    from annals.events n
    where (n.category, n.position) > ($9, $7)
    order by n.category, n.position
    limit greatest($8::bigint - $7::bigint, 0)
) e
where (e.category, e.position) <= ($9, least($8::bigint, $5::bigint))
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
