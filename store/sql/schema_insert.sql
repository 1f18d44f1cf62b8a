-- Registers a version of a schema. $1 fingerprint, $2 full name, $3 definition.
-- No row changes when it was registered before.
insert into annals.schemas (fingerprint, full_name, definition, recorded_at)
values ($1, $2, $3, clock_timestamp())
on conflict (fingerprint) do nothing
