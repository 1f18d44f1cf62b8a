-- Reads the position of the last event. Always one row.
select coalesce(max(position), 0) as position from annals.events
