-- The totals of all flights (carrier and destination null), of each carrier (destination null) and of each
-- destination (carrier null). Without parameters. No flights: one row of zeros.
select
    f.carrier,
    f.destination,
    count(*) as flights,
    count(*) filter (where f.is_cancelled) as cancelled,
    count(f.departed_at) as departed,
    count(f.arrival_delay_minutes) as arrived,
    coalesce(sum(f.departure_delay_minutes), 0)::bigint as departure_delay_minutes,
    coalesce(sum(f.arrival_delay_minutes), 0)::bigint as arrival_delay_minutes
from flights_read_model.flights f
group by grouping sets ((), (f.carrier), (f.destination))
