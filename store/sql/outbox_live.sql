-- A page of a small window, in position order, found by transaction id.
-- $1 snapshot at its begin, $2 snapshot at its end, $3 shards, $4 position after which to begin, $5 most rows.
-- Fewer rows than asked for: nothing more of these shards became visible between the two.
-- The window is found first, on its own: beside a limit and an order the planner may walk over all positions instead.
with visible as materialized (
    select o.position, o.shard from annals.outbox o
    where (
        o.xid >= pg_snapshot_xmax($1::pg_snapshot) and o.xid < pg_snapshot_xmax($2::pg_snapshot)
        or o.xid = any (array(select pg_snapshot_xip($1::pg_snapshot)))
    )
    and pg_visible_in_snapshot(o.xid, $2::pg_snapshot) and not pg_visible_in_snapshot(o.xid, $1::pg_snapshot)
    and o.shard = any ($3)
    union all
    -- What the window reaches back to in dropped partitions; there is such a partition in few windows only.
    select e.position, annals.shard_of(e.stream) as shard
    from annals.outbox_dropped d
    cross join lateral (
        select * from annals.events e
        where e.position >= d.lower and e.position < d.upper and e.position > $4
        and pg_visible_in_snapshot(e.xid, $2::pg_snapshot) and not pg_visible_in_snapshot(e.xid, $1::pg_snapshot)
        offset 0
    ) e
    where d.xid_max >= pg_snapshot_xmin($1::pg_snapshot) and d.xid_min < pg_snapshot_xmax($2::pg_snapshot)
    and annals.shard_of(e.stream) = any ($3)
)
select
    e.position, o.shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint, e.recorded_at,
    e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from visible o
cross join lateral (
    -- `offset 0` keeps this a lookup by key, whatever the planner knew of the tables when it planned.
    select * from annals.events e where e.position = o.position offset 0
) e
where o.position > $4
order by o.position
limit $5
