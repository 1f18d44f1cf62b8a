-- Selects the accepted gaps of a projection. $1 projection.
-- No row: none was accepted.
select stream, expected, found
from annals_projections.annals_projection_gaps
where projection = $1
