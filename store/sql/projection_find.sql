-- Selects the events that a version of a projection follows. $1 projection, $2 version.
-- No row: it is not registered.
select category, types from annals.projections where name = $1 and version = $2
