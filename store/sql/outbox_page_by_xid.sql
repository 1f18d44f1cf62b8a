-- A page of the late events of a window, whose positions are below its start, in position order,
-- found by transaction id.
-- $1 snapshot, $2 next transaction id, $3 position, $4 settled position at its start; $5 snapshot,
-- $6 position, $7 settled position at its end; $8 position to start after, $9 shards, $10 maximum
-- number of rows.
-- Fewer rows than the limit: the last page.
-- They are found transaction by transaction, each from the index up to the position: what a
-- transaction wrote above is not read, however much that is.
select
    e.position, e.shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint, e.recorded_at,
    e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from annals.late_transactions($1::pg_snapshot, $2::text::xid8, $5::pg_snapshot, $4::bigint <> $7::bigint) t (xid)
cross join lateral (
    select e.*, o.shard
    from annals.outbox o
    cross join lateral (
        -- `offset 0` keeps this a lookup by key, for any table statistics at planning time.
        select * from annals.events e where e.position = o.position offset 0
    ) e
    where o.xid = t.xid and o.position > $8 and o.position <= $3 and o.shard = any ($9)
    and not annals.is_visible_at(o.position, o.xid, $1::pg_snapshot, $3, $4)
    and annals.is_visible_at(o.position, o.xid, $5::pg_snapshot, $6, $7)
    order by o.position
    limit $10
) e
order by e.position
limit $10
