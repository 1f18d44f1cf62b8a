-- What all aircraft have flown (tail_number null), and each. Without parameters. No aircraft: one row of zeros.
select
    a.tail_number,
    coalesce(sum(a.legs), 0)::bigint as legs,
    coalesce(sum(a.miles), 0)::bigint as miles,
    coalesce(sum(a.air_time_minutes), 0)::bigint as air_time_minutes
from flights_read_model.aircraft a
group by grouping sets ((), (a.tail_number))
