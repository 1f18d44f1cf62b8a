-- A page of the late events of a window, whose positions are below its start, in position order,
-- found by transaction id.
-- $1 snapshot, $2 next transaction id, $3 position, $4 settled position at its start; $5 snapshot,
-- $6 position, $7 settled position at its end; $8 position to start after, $9 shards, $10 maximum
-- number of rows.
-- Fewer rows than the limit: the last page.
-- They are first found by their transactions alone: with conditions on positions, a limit or an
-- order, the planner can scan all positions instead.
-- Rows of a transaction that was still running at the window's end are not read, however many there
-- are. Transaction ids of another history do not say whether it was running.
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
    -- `offset 0` keeps this a lookup by key, for any table statistics at planning time.
    select * from annals.events e where e.position = o.position offset 0
) e
where not annals.is_visible_at(o.position, o.xid, $1::pg_snapshot, $3, $4)
and annals.is_visible_at(o.position, o.xid, $5::pg_snapshot, $6, $7)
and o.position <= $3 and o.position > $8 and o.shard = any ($9)
order by o.position
limit $10
