-- Registers a version of a projection.
-- $1 projection, $2 version, $3 category of its events (null: all), $4 their types (null: all).
-- No row inserted: it is registered.
insert into annals.projections (name, version, category, types)
values ($1, $2, $3, $4)
on conflict (name, version) do nothing
