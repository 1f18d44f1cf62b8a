-- Notes arrivals. $1 streams, $2 delays in minutes, $3 minutes in the air. Changes one row a stream.
update flights_read_model.flights f
set arrival_delay_minutes = a.delay_minutes, air_time_minutes = a.air_time_minutes
from unnest($1::text[], $2::int[], $3::int[]) as a (stream, delay_minutes, air_time_minutes)
where f.stream = a.stream
