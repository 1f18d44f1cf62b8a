-- Reads the positions of events in order. $1 position to start after, $2 last position, $3 limit.
-- One row: an array; with fewer positions than the limit, it is the last one.
select coalesce(array_agg(e.position order by e.position), '{}') as positions
from (
    select e.position from annals.events e where e.position > $1 and e.position <= $2 order by e.position limit $3
) e
