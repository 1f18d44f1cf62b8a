-- Stores the progress of a version of a projection, in the transaction of the events that it has
-- applied. $1 projection, $2 version, $3 epoch, $4 checkpoint, $5 its position, $6 number of
-- events, $7 the checkpoint before.
-- No row changed: this transaction must not commit. Another runner has the lease, or the database
-- is another one, which has not applied the events before: behind a connection pooler, a runner's
-- connection outlives a failover.
update annals.projections
set checkpoint = $4, position = $5, events = events + $6, updated_at = clock_timestamp(),
    failed_position = null, failed_event = null, failed_stream = null, failed_version = null, failed_type = null,
    error = null, failed_since = null, attempts = 0, retry_at = null
where name = $1 and version = $2 and epoch = $3 and not is_inline and checkpoint is not distinct from $7
