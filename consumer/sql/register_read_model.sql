-- Registers a version of a projection's read model, with the statements that create its tables.
-- $1 projection, $2 version, $3 statements.
-- No row inserted: the version is registered.
insert into annals_projections.annals_projection_read_models (name, version, tables)
values ($1, $2, $3)
on conflict do nothing
