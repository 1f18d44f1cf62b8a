-- The last versions applied of some streams.
-- $1 projection, $2 streams. No row: the projection has not seen the stream.
select stream, version
from annals_projections.annals_projection_versions
where projection = $1 and stream = any ($2)
