-- Locks out other migrations of this schema until this transaction ends. Three statements, the
-- first of a transaction. A session lock would stay with a connection that a pooler gives to
-- another client. The isolation level makes the statements after the lock see the effects of
-- earlier migrations. No limit of time of the session applies, to the wait or to the migrations.
set transaction isolation level read committed;
select set_config(s.name, '0', true)
from pg_settings s
where s.name in ('lock_timeout', 'statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout');
select pg_advisory_xact_lock(hashtextextended('annals.migrate', 0))
