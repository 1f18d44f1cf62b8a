-- Finds published events in the store, removed ones included. $1 event ids. No row for an event
-- that it does not have.
select event_id, stream, version, position from annals.events where event_id = any ($1)
union all
select event_id, stream, version, position from annals.removed_events where event_id = any ($1)
