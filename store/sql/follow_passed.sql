-- What a follower has passed since a bound of the log, as evidence that all of it is still there: one row, the number of events and
-- the exclusive or of their ids' lower halves with their positions. Removed events were passed, too.
-- $1 snapshot, $2 position, $3 settled position at the bound; $4 snapshot, $5 position, $6 settled position up to which everything
-- is passed; $7 snapshot, $8 position, $9 settled position of the window that the follower is inside, and $10 the position up to
-- which it is passed (nulls: inside none); $11 position after which all of it lies; $12 event types (null: all), $13 category
-- (null: all).
select
    count(*) as events,
    coalesce(bit_xor(('x' || right(replace(e.event_id::text, '-', ''), 16))::bit(64)::bigint # e.position), 0) as digest
from (
    select position, event_id, category, event_type, xid from annals.events
    where position > $11 and position <= greatest($5::bigint, $10::bigint)
    union all
    select position, event_id, category, event_type, xid from annals.removed_events
    where position > $11 and position <= greatest($5::bigint, $10::bigint)
) e
where not annals.is_seen(e.position, e.xid, $1::pg_snapshot, $2, $3)
and (
    annals.is_seen(e.position, e.xid, $4::pg_snapshot, $5, $6)
    or e.position <= $10 and annals.is_seen(e.position, e.xid, $7::pg_snapshot, $8, $9)
)
and ($13::text is null or e.category = $13) and ($12::text[] is null or e.event_type = any ($12))
