-- The kinds of locks that this transaction holds, each once, but those that every transaction has
-- on itself.
select distinct locktype || ' ' || mode from pg_locks
where pid = pg_backend_pid() and locktype not in ('virtualxid', 'transactionid') order by 1
