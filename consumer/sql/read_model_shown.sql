-- Selects the version of a read model that readers see, and lets no other transaction change it.
-- $1 projection. No row: readers see none.
select version
from annals_projections.annals_projection_shown
where name = $1
for update
