-- Reads how many committed events the copied checkpoints of a deployment do not cover, and when the
-- oldest of them was recorded. $1 deployment, $2 number of positions to read at most, in some 40
-- ranges.
-- One row each shard and each category with such events, and one row for all.
--
-- Counting millions of events would take seconds. So half of the positions are the last ones of the
-- log, which are counted; the positions before, from the lowest checkpoint on, are counted if they
-- are as few, or else estimated from evenly spaced ranges, of which the first begins at that
-- checkpoint.
-- Late events, whose positions are below their shard's checkpoint, are found by transaction id.
with shards as materialized (
    select
        s.shard::smallint as shard, c.checkpoint,
        greatest(
            (c.checkpoint -> 'since' ->> 'position')::bigint,
            case when c.checkpoint -> 'until' <> 'null' then (c.checkpoint ->> 'after')::bigint end, 0
        ) as passed
    from generate_series(0, annals.shard_count() - 1) as s (shard)
    left join annals.relay_checkpoints c on c.deployment = $1 and c.shard = s.shard
),
log as materialized (
    select low.passed, greatest(low.passed, high.position - $2::bigint / 2) as tail, high.position as last
    from (select min(passed) as passed from shards) low,
        (select coalesce(max(e.position), 0) as position from annals.events e) high
),
ranges as materialized (
    select l.tail as after, l.last as until, 1.0 as weight from log l where l.tail < l.last
    union all
    select l.passed, l.tail, 1.0 from log l where l.tail > l.passed and l.tail - l.passed <= $2::bigint / 2
    union all
    select
        l.passed + (l.tail - l.passed) * i / 40, l.passed + (l.tail - l.passed) * i / 40 + $2::bigint / 80,
        (l.tail - l.passed) / 40.0 / ($2::bigint / 80)
    from log l, generate_series(0, 39) i
    where l.tail - l.passed > $2::bigint / 2
),
late_transactions as materialized (
    select b.snapshot, array(
        select x.xid
        from (
            select pg_snapshot_xip(b.snapshot::pg_snapshot)
            union all
            select i::text::xid8
            from generate_series(pg_snapshot_xmax(b.snapshot::pg_snapshot)::text::bigint, b.next_xid - 1) i
        ) x (xid)
        where pg_visible_in_snapshot(x.xid, pg_current_snapshot())
    ) as xids
    from (
        select distinct bound ->> 'snapshot' as snapshot, (bound ->> 'next_xid')::bigint as next_xid
        from shards s, lateral (values (s.checkpoint -> 'since'), (s.checkpoint -> 'until')) b (bound)
        where bound ->> 'snapshot' is not null
    ) b
),
late as materialized (
    select distinct o.position, o.shard
    from late_transactions t
    cross join lateral (
        select o.position, o.xid, o.shard from annals.outbox o where o.xid = any (t.xids) and o.position <= (select max(passed) from shards) limit $2
    ) o
    join shards s on s.shard = o.shard and t.snapshot in (
        s.checkpoint -> 'since' ->> 'snapshot', s.checkpoint -> 'until' ->> 'snapshot'
    )
    where o.position <= s.passed and not annals.relay_is_published(o.position, o.xid, s.checkpoint)
),
waiting as (
    select s.shard, e.category, e.recorded_at, r.weight
    from ranges r
    cross join lateral (
        -- `offset 0` keeps this a range of the key, for any table statistics at planning time.
        select e.position, e.stream, e.category, e.recorded_at from annals.events e
        where e.position > r.after and e.position <= r.until
        offset 0
    ) e
    join shards s on s.shard = annals.shard_of(e.stream) and s.passed < e.position
    union all
    select l.shard, e.category, e.recorded_at, 1.0
    from late l
    cross join lateral (
        select e.category, e.recorded_at from annals.events e where e.position = l.position offset 0
    ) e
)
select
    shard, category, round(sum(weight))::bigint as events, max(weight) > 1 as is_estimate,
    (extract(epoch from min(recorded_at)) * 1000000)::bigint as oldest_us,
    extract(epoch from greatest(now() - min(recorded_at), interval '0'))::double precision as age_seconds
from waiting
group by grouping sets ((shard), (category), ())
having count(*) > 0
