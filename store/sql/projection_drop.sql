-- Deletes a version of a projection that readers do not see. $1 projection, $2 version.
-- An error if they do, or if there is none.
select annals.projection_drop($1, $2)
