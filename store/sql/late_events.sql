-- Finds the late events of a window: events of transactions that were running at its start. They
-- drew their positions before it and became visible after it; all other events of the window are
-- above.
-- $1 snapshot, $2 next transaction id, $3 position, $4 settled position at the window's start, $5
-- maximum number of positions.
-- One row: the first and the last position of the late events that are visible now, and all of
-- their positions in order; nulls if there are none. If there are more, or if they can be in a
-- dropped partition of the outbox, `positions` is null, and the late events are from `first` to
-- `last`, among others.
with now as (
    select pg_current_snapshot() as snapshot, i.settled <> $4 as is_moved from annals.identity i where i.is_only
),
late as materialized (
    select l.positions, l.lowest
    from now n
    cross join lateral annals.late_events($1::pg_snapshot, $2::text::xid8, $3, $4, n.snapshot, n.is_moved, $5) l
),
listed as (
    select min(p.position) as first, max(p.position) as last, array_agg(p.position order by p.position) as positions
    from late l
    cross join lateral unnest(l.positions) p (position)
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
    least(listed.first, late.lowest, dropped.lower) as first,
    case when late.lowest is null and dropped.lower is null then listed.last else $3 end as last,
    case when dropped.lower is null then listed.positions end as positions
from late
cross join listed
cross join dropped
