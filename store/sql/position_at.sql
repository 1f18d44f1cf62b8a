-- The position from which reading forwards misses no event recorded at a time or later. $1 the time.
-- One row, of null when there is no such event.
select annals.position_at($1) as position
