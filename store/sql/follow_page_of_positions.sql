-- The events of a window at some positions, in position order.
-- $1 snapshot, $2 position, $3 settled position at its start; $4 snapshot, $5 position, $6 settled
-- position at its end; $7 positions, $8 event types (null: all), $9 category (null: all), $10
-- maximum number of rows, $11 maximum number of payload bytes, which the last row can exceed.
-- Fewer rows and bytes than the limits: these are all.
select position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from (
    select
        page.*,
        sum(octet_length(payload)) over (order by position rows unbounded preceding) - octet_length(payload) as bytes_before
    from (
        select
            e.position, e.stream, e.version, e.event_id, e.event_type, e.fingerprint, e.recorded_at, e.payload, e.metadata,
            e.headers
        from unnest($7::bigint[]) p (position)
        cross join lateral (
            -- `offset 0` keeps this a lookup by key, for any table statistics at planning time.
            select * from annals.events e where e.position = p.position offset 0
        ) e
        where not annals.is_visible_at(e.position, e.xid, $1::pg_snapshot, $2, $3)
        and annals.is_visible_at(e.position, e.xid, $4::pg_snapshot, $5, $6)
        and ($9::text is null or e.category = $9) and ($8::text[] is null or e.event_type = any ((select $8)::text[]))
        order by e.position
        limit $10
    ) page
) page
where bytes_before < $11
order by position
