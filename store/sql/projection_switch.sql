-- Lets readers see a version of a projection. $1 projection, $2 version.
-- One row: false if the version is behind the present one, and nothing changes.
select annals.projection_switch($1, $2)
