-- Reads a page of the events with a correlation id backwards.
-- $1 correlation id as text, $2 position to start before, $3 maximum number of rows, $4 event types
-- (null: all), $5 earliest time of recording (null: any), $6 maximum number of payload bytes, which
-- the last row can exceed, $7 lowest position that can have been recorded since that time, where
-- the read ends.
-- No row: no earlier such event is visible.
-- With the row comparison the planner can only use the index with this order; with an equality it
-- can scan all positions instead. The comparison of the id alone matches the predicate of the
-- partial index.
-- Types and times are in subselects, so that the planner does not sort for a rare one.
select position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from (
    select
        page.*,
        sum(octet_length(payload)) over (order by correlation_id desc, position desc rows unbounded preceding) - octet_length(payload) as bytes_before
    from (
        select
            metadata ->> 'correlation_id' as correlation_id, position, stream, version, event_id, event_type, fingerprint, recorded_at,
            payload, metadata, headers
        from annals.events
        where ((metadata ->> 'correlation_id'), position) < ($1, $2) and ((metadata ->> 'correlation_id'), position) >= ($1, $7)
        and (metadata ->> 'correlation_id') >= $1
        and ($4::text[] is null or event_type = any ((select $4)::text[])) and ($5::timestamptz is null or recorded_at >= (select $5))
        order by (metadata ->> 'correlation_id') desc, position desc
        limit $3
    ) page
) page
where bytes_before < $6
order by correlation_id desc, position desc
