-- All totals of the read model: of all flights, each carrier and each destination, of all aircraft
-- and each. Without parameters. One row a total: its group, its name, its value.
select
    coalesce('carrier ' || f.carrier, 'destination ' || f.destination, 'all') as of_group,
    sum.name,
    sum.total
from (
    select
        f.carrier,
        f.destination,
        count(*) as flights,
        count(*) filter (where f.is_cancelled) as cancelled,
        count(f.departure_delay_minutes) as departed,
        count(f.arrival_delay_minutes) as arrived,
        coalesce(sum(f.departure_delay_minutes), 0) as departure_delay,
        coalesce(sum(f.arrival_delay_minutes), 0) as arrival_delay
    from flights_read_model.flights f
    group by grouping sets ((), (f.carrier), (f.destination))
) f
cross join lateral (values
    ('flights', f.flights), ('cancelled', f.cancelled), ('departed', f.departed), ('arrived', f.arrived),
    ('minutes of departure delay', f.departure_delay), ('minutes of arrival delay', f.arrival_delay)
) as sum (name, total)
union all
select coalesce('aircraft ' || a.tail_number, 'all'), sum.name, sum.total::bigint
from (
    select
        a.tail_number,
        coalesce(sum(a.legs), 0) as legs,
        coalesce(sum(a.miles), 0) as miles,
        coalesce(sum(a.air_time_minutes), 0) as air_time
    from flights_read_model.aircraft a
    group by grouping sets ((), (a.tail_number))
) a
cross join lateral (values
    ('legs', a.legs), ('miles', a.miles), ('minutes in the air', a.air_time)
) as sum (name, total)
