-- The events of one stream in a window, in version order, which is position order.
-- $1 snapshot, $2 position, $3 settled position at its start; $4 snapshot, $5 position, $6 settled
-- position at its end; $7 position to start after, $8 stream, $9 maximum number of rows.
-- Fewer rows than the limit: the last page.
select
    e.position, annals.shard_of(e.stream) as shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint,
    e.recorded_at, e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from annals.events e
where e.stream = $8 and e.position > $7 and e.position <= $5
and (
    e.xid < (select pg_snapshot_xmin($4::pg_snapshot))
    or e.position <= $6
    or pg_visible_in_snapshot(e.xid, (select $4::pg_snapshot))
)
and (
    e.position > $2
    or e.position > $3 and not pg_visible_in_snapshot(e.xid, (select $1::pg_snapshot))
)
order by e.version
limit $9
