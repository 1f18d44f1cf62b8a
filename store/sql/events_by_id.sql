-- Finds recorded events by their ids.
-- $1 ids, of which none occurs twice.
-- One row for each recorded event, in the order of the ids.
select e.event_id, e.stream, e.version, e.position, e.recorded_at
from unnest($1::uuid[]) with ordinality g (event_id, place) join annals.events e on e.event_id = g.event_id
order by g.place
