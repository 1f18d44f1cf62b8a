-- The relay's user may log in no more, and is logged out.
alter role relay nologin;
select pg_terminate_backend(pid) from pg_stat_activity where usename = 'relay';
