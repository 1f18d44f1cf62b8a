-- The relay's user has another password, and is logged out.
alter role relay password 'canary_second';
select pg_terminate_backend(pid) from pg_stat_activity where usename = 'relay';
