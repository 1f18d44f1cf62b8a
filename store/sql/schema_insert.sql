-- Registers a version of a schema. $1 fingerprint, $2 full name, $3 definition.
-- Nothing changes when it was registered before. One row, of nothing.
select annals.register_schema($1, $2, $3)
