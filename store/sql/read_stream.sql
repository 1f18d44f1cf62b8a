-- Reads a page of a stream forwards.
-- $1 stream, $2 version after which to begin (-1: from the first), $3 most rows.
-- No row: the stream has no later event, or does not exist.
select
    position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from annals.events
where stream = $1 and version > $2
order by version
limit $3
