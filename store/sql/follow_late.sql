-- A page of the few events of a window that lie below the position where it begins, in position order, found by transaction id.
-- $1 snapshot, $2 position, $3 settled position at its begin; $4 snapshot, $5 position, $6 settled position at its end;
-- $7 position after which to begin, $8 event types (null: all), $9 category (null: all), $10 most rows, $11 next transaction id
-- at its begin.
-- Fewer rows than asked for: there are no more of them.
-- They are found by their transactions alone, first: beside positions, a limit or an order, the planner may walk over all
-- positions instead. One that still ran at the window's end is not looked at, however much it wrote; ids of another history say
-- nothing of that.
with of_transactions as materialized (
    select o.position, o.xid from annals.outbox o
    where o.xid = any (array(
            select x.xid from pg_snapshot_xip($1::pg_snapshot) x (xid)
            where $3::bigint <> $6::bigint or pg_visible_in_snapshot(x.xid, $4::pg_snapshot)
        ))
        or o.xid >= pg_snapshot_xmax($1::pg_snapshot) and o.xid < (
            select case
                when $3::bigint <> $6::bigint then $11::text::xid8 else least($11::text::xid8, pg_snapshot_xmax($4::pg_snapshot))
            end
        )
)
select
    e.position, e.stream, e.version, e.event_id, e.event_type, e.fingerprint, e.recorded_at, e.payload, e.metadata,
    e.headers
from of_transactions o
cross join lateral (
    -- `offset 0` keeps this a lookup by key, whatever the planner knew of the tables when it planned.
    select * from annals.events e where e.position = o.position offset 0
) e
where not annals.is_seen(o.position, o.xid, $1::pg_snapshot, $2, $3)
and annals.is_seen(o.position, o.xid, $4::pg_snapshot, $5, $6)
and o.position <= $2 and o.position > $7
and ($9::text is null or e.category = $9) and ($8::text[] is null or e.event_type = any ((select $8)::text[]))
order by o.position
limit $10
