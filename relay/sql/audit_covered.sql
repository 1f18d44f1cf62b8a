-- Whether cursors cover events. $1 positions, $2 transaction ids, $3 cursors, in the same order.
-- One row each, in that order.
select annals.relay_is_published(w.position, w.xid::xid8, w.cursor::jsonb) as is_covered
from unnest($1::bigint[], $2::text[], $3::text[]) with ordinality as w (position, xid, cursor, index)
order by w.index
