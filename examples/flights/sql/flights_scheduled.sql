-- Adds flights. $1 streams, $2 carriers, $3 flight numbers, $4 origins, $5 destinations, $6 tail numbers or null,
-- $7 scheduled departures in milliseconds since 1970, $8 miles. Says nothing of a conflict: a flight that is
-- there already is an event that came twice, which must fail.
insert into flights_read_model.flights (
    stream, carrier, flight_number, origin, destination, tail_number, scheduled_departure, distance_miles
)
select
    s.stream, s.carrier, s.flight_number, s.origin, s.destination, s.tail_number,
    to_timestamp(s.scheduled_departure_ms / 1000.0), s.distance_miles
from unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::int[])
    as s (stream, carrier, flight_number, origin, destination, tail_number, scheduled_departure_ms, distance_miles)
