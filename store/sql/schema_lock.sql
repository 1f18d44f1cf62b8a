-- Serializes the transactions that register schemas of a category, so that they are visible in the
-- order of their times. $1 category.
select pg_advisory_xact_lock(hashtextextended('annals.schemas:' || $1, 0))
