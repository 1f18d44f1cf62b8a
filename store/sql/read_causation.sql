-- Reads a page of the events with a causation id forwards.
-- $1 causation id as text, $2 position after which to begin, $3 most rows,
-- $4 event types (null: all), $5 earliest time of recording (null: any).
-- No row: no later such event was visible when the page was read.
-- The comparison of rows leaves the planner only the index that has this order; with an equality it may walk over
-- all positions instead.
-- Types and times stand in subselects, so that the planner does not take a rare one for a reason to sort.
select
    position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from annals.events
where ((metadata ->> 'causation_id'), position) > ($1, $2) and (metadata ->> 'causation_id') <= $1
and ($4::text[] is null or event_type = any ((select $4)::text[])) and ($5::timestamptz is null or recorded_at >= (select $5))
order by (metadata ->> 'causation_id'), position
limit $3
