-- The events of one stream in a window, in version order, which is position order.
-- $1 snapshot, $2 position, $3 settled position at its start; $4 snapshot, $5 position, $6 settled
-- position at its end; $7 position to start after, $8 stream, $9 maximum number of rows.
-- Fewer rows than the limit: the last page.
--
-- Each version of a stream was written when the one before it was visible: its events in a window
-- follow one another. The first version after the position and in the window is found by a binary
-- search, so that a page reads as many rows as it returns, and no others of a stream of millions.
with recursive search (low, high) as (
    -- All versions below `low` are before the page, and none from `high` on is.
    select 0::bigint, (select e.version + 1 from annals.events e where e.stream = $8 order by e.version desc limit 1)
    union all
    select
        case when probe.is_before then probe.version + 1 else s.low end,
        case when probe.is_before then s.high else (s.low + s.high) / 2 end
    from search s
    cross join lateral (
        -- Versions can be missing.
        select
            e.version,
            not (
                e.position > $7
                and (e.position > $2 or e.position > $3 and not pg_visible_in_snapshot(e.xid, $1::pg_snapshot))
            ) as is_before
        from annals.events e
        where e.stream = $8 and e.version >= (s.low + s.high) / 2
        order by e.version
        limit 1
    ) probe
    where s.low < s.high
)
select
    e.position, annals.shard_of(e.stream) as shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint,
    e.recorded_at, e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers
from (
    select * from annals.events e
    where (e.stream, e.version) >= ($8, (select s.low from search s where s.low = s.high)) and e.stream <= $8
    order by e.stream, e.version
    limit $9
) e
where e.position <= $5
and (
    e.xid < (select pg_snapshot_xmin($4::pg_snapshot))
    or e.position <= $6
    or pg_visible_in_snapshot(e.xid, (select $4::pg_snapshot))
)
order by e.stream, e.version
