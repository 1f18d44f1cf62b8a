-- Adds the scheduled flights of a batch. $1 events, as a JSON array. Returns no rows. A flight that
-- exists is an event that was applied twice: it violates the primary key.
insert into flights_read_model.flights (stream, carrier, destination)
select e.stream, e.carrier, e.destination
from jsonb_to_recordset($1) as e (type text, stream text, carrier text, destination text)
where e.type = 'FlightScheduled'
