-- Records the event at which a version of a projection stops, and when it is tried again: after a
-- random pause, which doubles with each attempt from 100 ms to a minute.
-- $1 projection, $2 version, $3 epoch, $4 the event's position, $5 the error.
-- No row changed: another runner has the lease.
update annals.projections p
set failed_position = e.position, failed_event = e.event_id, failed_stream = e.stream,
    failed_version = e.version, failed_type = e.event_type, error = $5,
    failed_since = case when p.failed_position = e.position then p.failed_since else clock_timestamp() end,
    attempts = case when p.failed_position = e.position then p.attempts + 1 else 1 end,
    retry_at = clock_timestamp() + (0.5 + random() / 2) * least(
        interval '1 minute',
        interval '100 milliseconds' * 2 ^ case when p.failed_position = e.position then least(p.attempts, 20) else 0 end
    )
from annals.events e
where p.name = $1 and p.version = $2 and p.epoch = $3 and e.position = $4
