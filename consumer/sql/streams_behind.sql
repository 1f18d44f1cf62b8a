-- Counts the streams of which a projection has applied fewer versions than another one.
-- $1 projection, $2 the other one.
select count(*)
from annals_projections.annals_projection_versions other
left join annals_projections.annals_projection_versions own
    on own.projection = $1 and own.stream = other.stream
where other.projection = $2 and other.version > coalesce(own.version, -1)
