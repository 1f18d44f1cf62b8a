-- Reads a page of the events with a tag forwards.
-- $1 tag, $2 position to start after, $3 maximum number of rows, $4 event types (null: all), $5
-- earliest time of recording (null: any).
-- $6 maximum number of payload bytes, which the last row can exceed.
-- No row: no later such event is visible.
-- With the row comparison the planner can only use the index with this order; with an equality it
-- can scan all positions instead.
-- Types and times are in subselects, so that the planner does not sort for a rare one.
select position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from (
    select
        page.*,
        sum(octet_length(payload)) over (order by tag, position rows unbounded preceding) - octet_length(payload) as bytes_before
    from (
        select
            t.tag, e.position, e.stream, e.version, e.event_id, e.event_type, e.fingerprint, e.recorded_at, e.payload, e.metadata,
            e.headers
        from annals.tags t
        cross join lateral (select * from annals.events e where e.position = t.position offset 0) e
        where (t.tag, t.position) > ($1, $2) and t.tag <= $1
        and ($4::text[] is null or t.event_type = any ((select $4)::text[])) and ($5::timestamptz is null or e.recorded_at >= (select $5))
        order by t.tag, t.position
        limit $3
    ) page
) page
where bytes_before < $6
order by tag, position
