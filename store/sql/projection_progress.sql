-- Stores the progress of a version of a projection, in the transaction of the events that it has
-- applied. $1 projection, $2 version, $3 epoch, $4 checkpoint, $5 its position, $6 number of events.
-- No row changed: another runner has the lease, and this transaction must not commit.
update annals.projections
set checkpoint = $4, position = $5, events = events + $6, updated_at = clock_timestamp(),
    failed_position = null, failed_event = null, failed_stream = null, failed_version = null, failed_type = null,
    error = null, failed_since = null, attempts = 0, retry_at = null
where name = $1 and version = $2 and epoch = $3 and not is_inline
