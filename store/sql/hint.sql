-- Wakes followers. $1 the channel. Losing a hint is harmless, so its transaction does not wait for the disk.
select set_config('synchronous_commit', 'off', true), pg_notify($1, '')
