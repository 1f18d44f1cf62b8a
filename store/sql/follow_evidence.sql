-- Counts the events of a window that a follower has processed, including removed events: one row,
-- with their number and the exclusive or of the lower halves of their ids and of their positions.
-- $1 snapshot, $2 position, $3 settled position at the window's start; $4 snapshot, $5 position, $6
-- settled position at its end; $7 position to start after, $8 last position, $9 event types (null:
-- all), $10 category (null: all).
select
    count(*) as events,
    coalesce(bit_xor(('x' || right(replace(e.event_id::text, '-', ''), 16))::bit(64)::bigint # e.position), 0) as digest
from (
    select position, event_id, category, event_type, xid from annals.events
    where position > $7 and position <= $8
    union all
    select position, event_id, category, event_type, xid from annals.removed_events
    where position > $7 and position <= $8
) e
where not annals.is_visible_at(e.position, e.xid, $1::pg_snapshot, $2, $3)
and annals.is_visible_at(e.position, e.xid, $4::pg_snapshot, $5, $6)
and ($10::text is null or e.category = $10) and ($9::text[] is null or e.event_type = any ($9))
