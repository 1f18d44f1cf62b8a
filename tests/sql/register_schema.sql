-- Registers a schema as a program without the checks of the store does.
-- $1 category, $2 fingerprint, $3 full name, $4 definition. One row, without content.
select annals.register_schema($1, $2, $3, $4)
