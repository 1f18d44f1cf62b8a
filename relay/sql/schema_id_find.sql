-- Reads the recorded registry id of a schema. $1 subject, $2 fingerprint.
-- No row: the relay has not asked the registry for it.
select id from annals.relay_schema_ids where subject = $1 and fingerprint = $2
