-- Renews the lease of a version of a projection.
-- $1 projection, $2 version, $3 epoch, $4 duration in milliseconds.
-- No row: another runner has it. Otherwise whether the event at which the projection stopped is to
-- be tried now; true if there is none. A pause is a minute at most: a longer one is from before the
-- clock was set back.
update annals.projections
set lease_until = clock_timestamp() + $4 * interval '1 millisecond'
where name = $1 and version = $2 and epoch = $3 and not is_inline
returning retry_at is null or retry_at <= clock_timestamp() or retry_at > clock_timestamp() + interval '1 minute' as is_due
