-- A page of a large window, in position order, found by position. The outbox is not needed for it.
-- $1 snapshot at its begin, $2 snapshot at its end, $3 position after which to begin, $4 most rows,
-- $5 unused (null), $6 event types (null: all), $7 last position of the window.
-- Fewer rows than asked for: the window ends with them.
-- The types stand in a subselect, so that the planner does not take a rare one for a reason to sort.
select
    position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from annals.events
where position > $3 and position <= $7
and pg_visible_in_snapshot(xid, $2::pg_snapshot) and not pg_visible_in_snapshot(xid, $1::pg_snapshot)
and $5::text is null and ($6::text[] is null or event_type = any ((select $6)::text[]))
order by position
limit $4
