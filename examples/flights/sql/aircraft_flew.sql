-- Adds flown legs to what their aircraft have flown. $1 tail numbers, $2 miles, $3 minutes in the air, one of each
-- a leg. Adding is not idempotent: the sums are right only if each event is applied exactly once.
insert into flights_read_model.aircraft (tail_number, legs, miles, air_time_minutes)
select l.tail_number, count(*), sum(l.miles), sum(l.air_time_minutes)
from unnest($1::text[], $2::int[], $3::int[]) as l (tail_number, miles, air_time_minutes)
group by l.tail_number
on conflict (tail_number) do update
set legs = aircraft.legs + excluded.legs,
    miles = aircraft.miles + excluded.miles,
    air_time_minutes = aircraft.air_time_minutes + excluded.air_time_minutes
