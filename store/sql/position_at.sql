-- Finds the position from which a forward read misses no event recorded at a time or later.
-- $1 time.
-- One row, null if there is no such event.
select annals.position_at($1) as position
