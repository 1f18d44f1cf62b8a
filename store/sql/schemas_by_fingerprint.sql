-- The definitions of schemas. $1 fingerprints. A fingerprint that nobody registered gives no row.
select distinct fingerprint, definition from annals.schemas where fingerprint = any ($1)
