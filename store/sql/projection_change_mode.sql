-- Lets appends apply their events to a version of a projection, or a runner.
-- $1 projection, $2 version, $3 epoch, $4 whether appends do, $5 checkpoint at the end of the log,
-- $6 its position, $7 events that were applied before.
-- No row changed: a runner has acquired the lease meanwhile, and this transaction must not commit.
update annals.projections
set is_inline = $4, checkpoint = $5, position = $6, events = events + $7, updated_at = clock_timestamp(),
    lease_until = null
where name = $1 and version = $2 and epoch = $3
