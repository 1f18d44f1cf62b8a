-- The databases of earlier runs that have no sessions and that this user may drop. Without
-- parameters.
select d.datname
from pg_database d
where d.datname like 'annals\_demo\_%'
    and pg_has_role(d.datdba, 'usage')
    and not exists (select from pg_stat_activity a where a.datid = d.oid)
