-- Finds the late events of a window: events of transactions that were running at its start. They
-- drew their positions before it and became visible after it; all other events of the window are
-- above.
-- $1 snapshot, $2 next transaction id, $3 position, $4 settled position at the window's start.
-- One row: the first and the last position of the late events that are visible now, and their
-- number, counted up to 10,001; nulls and 0 if there are none. If they can be in a dropped
-- partition of the outbox, they are not counted: `first` is the first position of the partition,
-- and `is_counted` is false.
--
-- They are first found by their transactions alone: with conditions on positions, the planner can
-- scan all positions instead. A transaction that is still running has no visible events, so its
-- rows are not read, however many there are. Transaction ids of another history do not say whether
-- it is running.
with now as (
    select pg_current_snapshot() as snapshot, i.settled <> $4 as is_moved from annals.identity i where i.is_only
),
of_transactions as materialized (
    select o.position from annals.outbox o
    where o.xid = any (array(
            select x.xid from pg_snapshot_xip($1::pg_snapshot) x (xid), now n
            where n.is_moved or pg_visible_in_snapshot(x.xid, n.snapshot)
        ))
        or o.xid >= pg_snapshot_xmax($1::pg_snapshot) and o.xid < (
            select case when n.is_moved then $2::text::xid8 else least($2::text::xid8, pg_snapshot_xmax(n.snapshot)) end from now n
        )
),
late as (
    select t.position from of_transactions t where t.position <= $3 and t.position > $4
),
dropped as (
    select min(d.lower) as lower
    from annals.outbox_dropped d
    where d.lower <= $3 and d.upper > $4 and (
        exists (
            select from pg_snapshot_xip($1::pg_snapshot) x (xid)
            where x.xid >= d.xid_min and x.xid <= d.xid_max
                -- A transaction that was running when the partition was dropped has no rows in it.
                -- Transaction ids of another history have no meaning.
                and (d.settled <> $4 or pg_visible_in_snapshot(x.xid, d.snapshot))
        )
        or d.xid_max >= pg_snapshot_xmax($1::pg_snapshot) and d.xid_min < $2::text::xid8
    )
)
select
    least((select min(position) from late), d.lower) as first,
    case when d.lower is null then (select max(position) from late) else $3 end as last,
    (select count(*) from (select from late limit 10001) counted) as events,
    d.lower is null as is_counted
from dropped d
