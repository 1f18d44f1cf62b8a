-- Lets readers see a version of a projection if they see none yet.
-- $1 projection, $2 version.
-- One row, or none.
select annals.projection_switch($1, $2)
where not exists (select from annals.projections p where p.name = $1 and p.is_active)
