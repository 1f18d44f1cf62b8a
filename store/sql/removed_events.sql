-- Reads the positions of the events that administrators removed from a range of positions, in
-- position order.
-- $1 position to start after, $2 last position, $3 category (null: all).
select position
from annals.removed_events
where position > $1 and position <= $2 and ($3::text is null or category = $3)
order by position
