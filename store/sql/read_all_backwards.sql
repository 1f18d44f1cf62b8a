-- Reads a page of all events backwards.
-- $1 unused (null), $2 position before which to begin, $3 most rows,
-- $4 event types (null: all), $5 earliest time of recording (null: any).
-- No row: no earlier such event was visible when the page was read.
select
    position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from annals.events
where $1::text is null and position < $2
and ($4::text[] is null or event_type = any ($4)) and ($5::timestamptz is null or recorded_at >= $5)
order by position desc
limit $3
