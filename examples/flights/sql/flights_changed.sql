-- Records departures, arrivals and cancellations of a batch. $1 events, as a JSON array. Changes
-- one row a stream; a stream without a row was never scheduled.
update flights_read_model.flights f
set is_cancelled = f.is_cancelled or e.is_cancelled,
    departure_delay_minutes = coalesce(e.departure_delay_minutes, f.departure_delay_minutes),
    arrival_delay_minutes = coalesce(e.arrival_delay_minutes, f.arrival_delay_minutes)
from (
    select
        e.stream,
        bool_or(e.type = 'FlightCancelled') as is_cancelled,
        max(e.delay_minutes) filter (where e.type = 'FlightDeparted') as departure_delay_minutes,
        max(e.delay_minutes) filter (where e.type = 'FlightArrived') as arrival_delay_minutes
    from jsonb_to_recordset($1) as e (type text, stream text, delay_minutes int)
    where e.type <> 'FlightScheduled'
    group by e.stream
) e
where f.stream = e.stream
