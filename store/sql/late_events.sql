-- Finds the late events of a window: events of transactions that were running at its start. They
-- drew their positions before it and became visible after it; all other events of the window are
-- above.
-- $1 snapshot, $2 next transaction id, $3 position, $4 settled position at the window's start.
-- One row: the first and the last position of the late events that are visible now, and their
-- number, counted up to 10,001; nulls and 0 if there are none. If they can be in a dropped
-- partition of the outbox, they are not counted: `first` is the first position of the partition,
-- and `is_counted` is false.
--
-- They are found transaction by transaction, each from the index up to the position: what a
-- transaction wrote above is not read, however much that is.
with now as (
    select pg_current_snapshot() as snapshot, i.settled <> $4 as is_moved from annals.identity i where i.is_only
),
late as materialized (
    select t.xid, first.position as first, last.position as last
    from now n
    cross join lateral annals.late_transactions($1::pg_snapshot, $2::text::xid8, n.snapshot, n.is_moved) t (xid)
    cross join lateral (
        select o.position from annals.outbox o
        where o.xid = t.xid and o.position > $4 and o.position <= $3
        order by o.position
        limit 1
    ) first
    cross join lateral (
        select o.position from annals.outbox o
        where o.xid = t.xid and o.position > $4 and o.position <= $3
        order by o.position desc
        limit 1
    ) last
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
    least((select min(l.first) from late l), d.lower) as first,
    case when d.lower is null then (select max(l.last) from late l) else $3 end as last,
    (
        select count(*)
        from (
            select
            from late l
            cross join lateral (
                select from annals.outbox o
                where o.xid = l.xid and o.position >= l.first and o.position <= l.last
                limit 10001
            ) o
            limit 10001
        ) counted
    ) as events,
    d.lower is null as is_counted
from dropped d
