-- Notifies followers.
-- $1 channel. A lost notification is harmless, so the transaction does not wait for the disk.
select set_config('synchronous_commit', 'off', true), pg_notify($1, '')
