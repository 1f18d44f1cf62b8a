-- Reads the positions of the events of a window that administrators removed, in position order.
-- $1 snapshot, $2 position, $3 settled position at its start; $4 snapshot, $5 position, $6 settled
-- position at its end; $7 position to start after, $8 last position, $9 category (null: all).
select position
from annals.removed_events
where position > $7 and position <= $8
and not annals.is_visible_at(position, xid, $1::pg_snapshot, $2, $3)
and annals.is_visible_at(position, xid, $4::pg_snapshot, $5, $6)
and ($9::text is null or category = $9)
order by position
