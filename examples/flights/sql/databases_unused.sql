-- The databases of earlier runs that nobody is connected to and that this user may drop, oldest first. Without parameters.
select d.datname
from pg_database d
where d.datname ~ '^annals_demo_[0-9_]+$'
    and pg_has_role(d.datdba, 'usage')
    and not exists (select from pg_stat_activity a where a.datid = d.oid)
order by d.datname
