-- The number of rows of events and of the outbox that were read, by any session.
select coalesce(sum(coalesce(idx_tup_fetch, 0) + coalesce(seq_tup_read, 0)), 0)::bigint
from pg_stat_user_tables
where schemaname = 'annals' and (relname = 'events' or starts_with(relname, 'outbox'))
