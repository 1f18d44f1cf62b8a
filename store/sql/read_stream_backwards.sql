-- Reads a page of a stream backwards.
-- $1 stream, $2 version before which to begin, $3 most versions,
-- $4 event types (null: all), $5 earliest time of recording (null: any).
-- The range stands for a limit, since versions have no gaps: however long the stream is and whatever the plan, a
-- page costs what a page has. No row: the stream has no earlier such event, or does not exist.
-- Types and times stand in subselects, so that the planner does not take a rare one for a reason to sort.
select
    position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from annals.events
where stream = $1 and version < $2 and version >= $2 - $3
and ($4::text[] is null or event_type = any ((select $4)::text[])) and ($5::timestamptz is null or recorded_at >= (select $5))
order by version desc
