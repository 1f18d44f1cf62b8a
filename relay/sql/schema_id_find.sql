-- The registry's id of a schema, as it was told before. $1 subject, $2 fingerprint.
-- No row: it was never asked for.
select id from annals.relay_schema_ids where subject = $1 and fingerprint = $2
