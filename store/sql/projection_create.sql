-- Creates the database schema of a version of a projection, unless it exists, for a login that may
-- create schemas. $1 schema.
select annals.projection_create($1)
