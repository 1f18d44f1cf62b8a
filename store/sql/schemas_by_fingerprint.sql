-- Reads the definitions of schemas.
-- $1 fingerprints.
-- No row for a fingerprint that is not registered.
select distinct fingerprint, definition from annals.schemas where fingerprint = any ($1)
