-- Stores the last applied version of each stream of a batch, and the ids of its last events. $1
-- projection, $2 streams, each once, $3 their versions, $4 the event ids of all of them, the last
-- one of each stream first, $5 the place of each stream's first id in $4, and $6 of its last one.
--
-- The ids come as one binary array, since PostgreSQL has no arrays of arrays of different lengths:
-- parsing a text for each stream took as long as writing its row.
insert into annals_projections.annals_projection_versions (projection, stream, version, event_ids)
select $1, stream, version, ($4::uuid[])[id_first : id_last]
from unnest($2::text[], $3::bigint[], $5::integer[], $6::integer[])
    as batch (stream, version, id_first, id_last)
on conflict (projection, stream) do update set version = excluded.version, event_ids = excluded.event_ids
