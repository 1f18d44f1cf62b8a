-- Who owns the schema and everything in it, if it is one. Always one row.
select string_agg(distinct o.owner, ',')
from (
    select n.nspowner::regrole::text as owner from pg_namespace n where n.nspname = 'annals'
    union all
    select c.relowner::regrole::text from pg_class c where c.relnamespace = 'annals'::regnamespace
    union all
    select p.proowner::regrole::text from pg_proc p where p.pronamespace = 'annals'::regnamespace
) o
