-- Notes the last version applied of each stream of a batch.
-- $1 projection, $2 streams, each once, $3 their versions.
insert into annals_projections.annals_projection_versions (projection, stream, version)
select $1, stream, version
from unnest($2::text[], $3::bigint[]) as batch (stream, version)
on conflict (projection, stream) do update set version = excluded.version
