-- Reads every event that is recorded, in position order, as the checker compares it.
-- No row: the store is empty.
select event_id, stream, version, position, payload from annals.events order by position
