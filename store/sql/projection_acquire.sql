-- Acquires the lease of a version of a projection.
-- $1 projection, $2 version, $3 owner, $4 duration in milliseconds.
-- No row: another runner has it, or appends apply the events themselves.
-- A lease that another runner has, and that ends later than one lease from now, is from before the
-- clock was set back: it is cut off there.
with cut_off as (
    update annals.projections
    set lease_until = clock_timestamp() + lease
    where name = $1 and version = $2 and owner <> $3 and lease_until > clock_timestamp() + lease
)
update annals.projections
set owner = $3, epoch = epoch + 1, lease_until = clock_timestamp() + $4 * interval '1 millisecond',
    lease = $4 * interval '1 millisecond', run_at = clock_timestamp(), run_position = position, run_events = events
where name = $1 and version = $2 and not is_inline
    and (lease_until is null or lease_until <= clock_timestamp() or owner = $3)
returning epoch, checkpoint
