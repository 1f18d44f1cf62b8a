-- Registers a schema. $1 category, $2 fingerprint, $3 full name, $4 definition.
select annals.register_schema($1, $2, $3, $4)
