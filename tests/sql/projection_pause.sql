-- The seconds from the first attempt of an event to the next one, and the number of attempts.
-- $1 projection.
select extract(epoch from retry_at - failed_since)::float8, attempts from annals.projection_status where name = $1 and failed_event is not null
