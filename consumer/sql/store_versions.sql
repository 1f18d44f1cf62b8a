-- Stores the last applied version of each stream of a batch, and the ids of its last events. $1
-- projection, $2 streams, each once, $3 their versions, $4 their event ids, each as the text of an
-- array, the last first.
insert into annals_projections.annals_projection_versions (projection, stream, version, event_ids)
select $1, stream, version, event_ids::uuid[]
from unnest($2::text[], $3::bigint[], $4::text[]) as batch (stream, version, event_ids)
on conflict (projection, stream) do update set version = excluded.version, event_ids = excluded.event_ids
