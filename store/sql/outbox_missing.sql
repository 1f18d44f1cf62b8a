-- Of events that were at these positions, those that are not there any more; removed ones were. $1 positions, $2 ids, in the same
-- order. A row for each that is missing.
select l.event_id
from unnest($1::bigint[], $2::uuid[]) as l (position, event_id)
where not exists (select from annals.events e where e.position = l.position and e.event_id = l.event_id)
and not exists (select from annals.removed_events r where r.position = l.position and r.event_id = l.event_id)
