-- Waits until all appends in progress have ended, and keeps others waiting until the end of the
-- transaction. An error if that takes longer than the lock timeout, which $1 sets, in milliseconds.
select set_config('lock_timeout', $1::text, true), annals.projection_lock_appends()
