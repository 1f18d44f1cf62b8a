-- Notes departures. $1 streams, $2 departures in milliseconds since 1970, $3 delays in minutes. Changes one row a stream.
update flights_read_model.flights f
set departed_at = to_timestamp(d.departed_at_ms / 1000.0), departure_delay_minutes = d.delay_minutes
from unnest($1::text[], $2::bigint[], $3::int[]) as d (stream, departed_at_ms, delay_minutes)
where f.stream = d.stream
