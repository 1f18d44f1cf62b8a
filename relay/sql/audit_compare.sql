-- Compares records with the events at their positions. $1 positions, $2 event ids, $3 streams,
-- $4 versions, $5 SHA-256 of the values, in the same order.
-- One row for each record that differs: its index, from 1, and whether the event at its position
-- has its id.
select w.index, coalesce(e.event_id = w.event_id, false) as is_known
from unnest($1::bigint[], $2::uuid[], $3::text[], $4::bigint[], $5::bytea[])
    with ordinality as w (position, event_id, stream, version, hash, index)
left join lateral (
    -- `offset 0` keeps this a lookup by the key.
    select e.event_id, e.stream, e.version, e.payload from annals.events e where e.position = w.position offset 0
) e on true
where not coalesce(
    e.event_id = w.event_id and e.stream = w.stream and e.version = w.version and sha256(e.payload) = w.hash, false
)
