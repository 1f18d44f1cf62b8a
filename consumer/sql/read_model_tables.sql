-- Selects the statements that created the tables of a version of a read model.
-- $1 projection, $2 version. No row: the version is not registered.
select tables
from annals_projections.annals_projection_read_models
where name = $1 and version = $2
