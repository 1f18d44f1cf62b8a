-- Locks out migrations of the schema `ledger` until the end of the session.
select pg_advisory_lock(hashtextextended('ledger.migrate', 0))
