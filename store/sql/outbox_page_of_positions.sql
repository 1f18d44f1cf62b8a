-- The events of a window at some positions, in position order.
-- $1 snapshot, $2 position, $3 settled position at its start; $4 snapshot, $5 position, $6 settled
-- position at its end; $7 positions, $8 shards.
-- No row: the window has no events there.
select
    e.position, annals.shard_of(e.stream) as shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint,
    e.recorded_at, e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from unnest($7::bigint[]) p (position)
cross join lateral (
    -- `offset 0` keeps this a lookup by key, for any table statistics at planning time.
    select * from annals.events e where e.position = p.position offset 0
) e
where not annals.is_visible_at(e.position, e.xid, $1::pg_snapshot, $2, $3)
and annals.is_visible_at(e.position, e.xid, $4::pg_snapshot, $5, $6)
and annals.shard_of(e.stream) = any ($8)
order by e.position
