-- Which routine of the schema each role may call, and how it runs. $1 roles.
select
    p.proname::text as routine,
    r.role,
    has_function_privilege(r.role, p.oid, 'execute') as may,
    p.prosecdef as is_definer,
    exists (select from unnest(p.proconfig) c where c like 'search_path=%') as has_search_path
from pg_proc p cross join unnest($1::text[]) as r (role)
where p.pronamespace = 'annals'::regnamespace
order by 1, 2
