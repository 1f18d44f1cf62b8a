-- The lowest position that a window can contain, for reading it by position.
-- $1 snapshot, $2 next transaction id and $3 position at the window's begin.
--
-- A transaction that began to write after the window's begin drew its positions after it, so above $3.
-- One that ran then (named in the snapshot, or between its xmax and $2) may have drawn lower ones: few, found by
-- their ids, and on their own, for the planner would rather walk over all positions to find the lowest. Where they may
-- have been in a dropped partition, its first position has to do.
with late as materialized (
    select o.position from annals.outbox o
    where o.xid = any (array(select pg_snapshot_xip($1::pg_snapshot)))
        or o.xid >= pg_snapshot_xmax($1::pg_snapshot) and o.xid < $2::text::xid8
)
select least(
    $3,
    (select min(position) from late) - 1,
    (
        select min(d.lower) - 1 from annals.outbox_dropped d
        where d.xid_max >= pg_snapshot_xmin($1::pg_snapshot) and d.xid_min < $2::text::xid8
    )
) as position
