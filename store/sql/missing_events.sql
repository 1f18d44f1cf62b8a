-- Finds missing events.
-- $1 positions, $2 ids, in the same order.
-- One row for each event that is neither recorded at its position nor removed by an administrator.
select l.event_id
from unnest($1::bigint[], $2::uuid[]) as l (position, event_id)
where not exists (select from annals.events e where e.position = l.position and e.event_id = l.event_id)
and not exists (select from annals.removed_events r where r.position = l.position and r.event_id = l.event_id)
