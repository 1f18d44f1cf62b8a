-- Registers a version of a schema. $1 category, $2 fingerprint, $3 full name, $4 definition.
-- Nothing changes when it was registered before. One row, of nothing.
select annals.register_schema($1, $2, $3, $4)
