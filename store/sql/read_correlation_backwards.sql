-- Reads a page of the events with a correlation id backwards.
-- $1 correlation id as text, $2 position before which to begin, $3 most rows,
-- $4 event types (null: all), $5 earliest time of recording (null: any), $6 lowest position that can have been
-- recorded since that time: the page ends there, however much there is before it.
-- No row: no earlier such event was visible when the page was read.
-- The comparison of rows leaves the planner only the index that has this order; with an equality it may walk over
-- all positions instead. The comparison of the id alone tells it that the index has these rows.
-- Types and times stand in subselects, so that the planner does not take a rare one for a reason to sort.
select
    position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from annals.events
where ((metadata ->> 'correlation_id'), position) < ($1, $2) and ((metadata ->> 'correlation_id'), position) >= ($1, $6)
and (metadata ->> 'correlation_id') >= $1
and ($4::text[] is null or event_type = any ((select $4)::text[])) and ($5::timestamptz is null or recorded_at >= (select $5))
order by (metadata ->> 'correlation_id') desc, position desc
limit $3
