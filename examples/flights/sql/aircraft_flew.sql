-- Adds the flown legs of a batch. $1 events, as a JSON array. Changes one row a stream. Addition is
-- not idempotent: the sums are right only if each event is applied exactly once.
insert into flights_read_model.aircraft (tail_number, legs, miles, air_time_minutes)
select substr(e.stream, length('aircraft-') + 1), count(*), sum(e.distance_miles), sum(e.air_time_minutes)
from jsonb_to_recordset($1) as e (stream text, distance_miles int, air_time_minutes int)
group by e.stream
on conflict (tail_number) do update
set legs = aircraft.legs + excluded.legs,
    miles = aircraft.miles + excluded.miles,
    air_time_minutes = aircraft.air_time_minutes + excluded.air_time_minutes
