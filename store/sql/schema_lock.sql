-- Serializes the transactions that register versions of a schema.
-- $1 category, $2 full name.
select pg_advisory_xact_lock(hashtextextended('annals.schemas:' || $1 || ':' || $2, 0))
