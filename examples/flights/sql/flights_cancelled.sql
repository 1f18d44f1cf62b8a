-- Notes cancellations. $1 streams. Changes one row a stream.
update flights_read_model.flights f
set is_cancelled = true
from unnest($1::text[]) as c (stream)
where f.stream = c.stream
