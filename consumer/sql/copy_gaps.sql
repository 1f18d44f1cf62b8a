-- Accepts the gaps that were accepted for another projection. $1 projection, $2 the other one.
insert into annals_projections.annals_projection_gaps
    (projection, stream, expected, found, reason, accepted_by, accepted_at)
select $1, stream, expected, found, reason, accepted_by, accepted_at
from annals_projections.annals_projection_gaps
where projection = $2
on conflict do nothing
