-- A page of the few events of a window that lie below the position where it begins, in position order, found by transaction id.
-- $1 snapshot, $2 next transaction id, $3 position, $4 settled position at its begin; $5 snapshot, $6 position, $7 settled
-- position at its end; $8 position after which to begin, $9 shards, $10 most rows.
-- Fewer rows than asked for: there are no more of them.
-- They are found by their transactions alone, first: beside positions, a limit or an order, the planner may walk over all
-- positions instead. One that still ran at the window's end is not looked at, however much it wrote; ids of another history say
-- nothing of that.
with of_transactions as materialized (
    select o.position, o.shard, o.xid from annals.outbox o
    where o.xid = any (array(
            select x.xid from pg_snapshot_xip($1::pg_snapshot) x (xid)
            where $4::bigint <> $7::bigint or pg_visible_in_snapshot(x.xid, $5::pg_snapshot)
        ))
        or o.xid >= pg_snapshot_xmax($1::pg_snapshot) and o.xid < (
            select case
                when $4::bigint <> $7::bigint then $2::text::xid8 else least($2::text::xid8, pg_snapshot_xmax($5::pg_snapshot))
            end
        )
)
select
    e.position, o.shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint, e.recorded_at,
    e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from of_transactions o
cross join lateral (
    -- `offset 0` keeps this a lookup by key, whatever the planner knew of the tables when it planned.
    select * from annals.events e where e.position = o.position offset 0
) e
where not annals.is_seen(o.position, o.xid, $1::pg_snapshot, $3, $4)
and annals.is_seen(o.position, o.xid, $5::pg_snapshot, $6, $7)
and o.position <= $3 and o.position > $8 and o.shard = any ($9)
order by o.position
limit $10
