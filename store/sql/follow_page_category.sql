-- A page of a category's part of a large window, in position order, found by position.
-- $1 snapshot at its begin, $2 snapshot at its end, $3 position after which to begin, $4 most rows,
-- $5 category, $6 event types (null: all), $7 last position of the window.
-- Fewer rows than asked for: the window ends with them.
-- The comparison of rows leaves the planner only the index that has this order; with an equality it may walk over
-- all positions instead.
-- The types stand in a subselect, so that the planner does not take a rare one for a reason to sort.
select
    position, stream, version, event_id, event_type, fingerprint, recorded_at, payload, metadata, headers
from annals.events
where (category, position) > ($5, $3) and (category, position) <= ($5, $7)
and pg_visible_in_snapshot(xid, $2::pg_snapshot) and not pg_visible_in_snapshot(xid, $1::pg_snapshot)
and ($6::text[] is null or event_type = any ((select $6)::text[]))
order by category, position
limit $4
