-- Whether a session is there. $1 its process id.
select exists (select from pg_stat_activity where pid = $1)
