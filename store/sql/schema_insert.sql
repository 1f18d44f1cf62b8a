-- Registers a version of a schema.
-- $1 category, $2 fingerprint, $3 full name, $4 definition. No effect if it is registered.
-- One row, without content.
select annals.register_schema($1, $2, $3, $4)
