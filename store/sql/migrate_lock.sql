-- Makes other migrations of this schema wait until this transaction ends. Two statements, the first of a transaction.
-- A lock of the session would stay with a connection that a pooler gives to somebody else. What is looked at after the
-- lock must be what is there then, whatever level the database sets.
set transaction isolation level read committed;
select pg_advisory_xact_lock(hashtextextended('annals.migrate', 0))
