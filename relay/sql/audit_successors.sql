-- Reads the positions of the next events of streams. $1 streams, $2 versions, in the same order,
-- $3 number of events.
-- One row each, in that order; an empty array if the version is the stream's last one.
select array(
    select e.position from annals.events e where e.stream = w.stream and e.version > w.version order by e.version limit $3
) as positions
from unnest($1::text[], $2::bigint[]) with ordinality as w (stream, version, index)
order by w.index
