-- Selects the state of all versions of a projection. $1 projection.
-- No row: there is no such projection.
select
    version, is_active, is_inline, events, position, log_position, lag_since, owner, events_per_second,
    extract(epoch from time_left)::float8 as seconds_left,
    failed_event, failed_stream, failed_version, failed_type, error, attempts, failed_since
from annals.projection_status
where name = $1
order by version
