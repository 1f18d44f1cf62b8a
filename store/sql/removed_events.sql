-- Reads the positions of the events that administrators removed from a range of positions, in
-- position order.
-- $1 position to start after, $2 last position, $3 category (null: all), $4 whether those in the
-- archive are left out.
select r.position
from annals.removed_events r
where r.position > $1 and r.position <= $2 and ($3::text is null or r.category = $3)
and not ($4 and exists (select from annals.archived_events a where a.position = r.position))
order by r.position
