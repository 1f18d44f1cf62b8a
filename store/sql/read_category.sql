-- Reads a page of a category forwards.
-- $1 category, $2 position to start after, $3 maximum number of rows, $4 event types (null: all),
-- $5 earliest time of recording (null: any).
-- $6 maximum number of payload bytes, which the last row can exceed, $7 last position.
-- No row: no later such event of the category up to the last position is visible.
-- With the row comparison the planner can only use the index with this order; with an equality it
-- can scan all positions instead.
-- Types and times are in subselects, so that the planner does not sort for a rare one.
select position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from (
    select
        page.*,
        sum(octet_length(payload)) over (order by category, position rows unbounded preceding) - octet_length(payload) as bytes_before
    from (
        select
            category, position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata,
            headers
        from annals.events
        where (category, position) > ($1, $2) and (category, position) <= ($1, $7)
        and ($4::text[] is null or event_type = any ((select $4)::text[])) and ($5::timestamptz is null or recorded_at >= (select $5))
        order by category, position
        limit $3
    ) page
) page
where bytes_before < $6
order by category, position
