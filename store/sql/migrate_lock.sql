-- Locks out other migrations of this schema until this transaction ends. Two statements, the first
-- of a transaction. A session lock would stay with a connection that a pooler gives to another
-- client. The isolation level makes the statements after the lock see the effects of earlier
-- migrations.
set transaction isolation level read committed;
select pg_advisory_xact_lock(hashtextextended('annals.migrate', 0))
