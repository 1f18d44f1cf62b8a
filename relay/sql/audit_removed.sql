-- Finds events by their ids, removed ones included. $1 event ids.
-- One row each event that the store has or had; no row for one that it never had.
select event_id, position, stream, version, false as is_removed from annals.events where event_id = any ($1)
union all
select event_id, position, stream, version, true from annals.removed_events where event_id = any ($1)
