-- Reads a page of a category forwards.
-- $1 category, $2 position after which to begin (0: from the first), $3 most rows.
-- No row: the category has no later event that was visible when the page was read.
select
    position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from annals.events
where category = $1 and position > $2
order by position
limit $3
