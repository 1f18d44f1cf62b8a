-- Whether each role may use or set each sequence of the schema, or make anything in the schema
-- itself. $1 roles.
select
    c.relname::text as name, r.role,
    has_sequence_privilege(r.role, c.oid, 'usage') or has_sequence_privilege(r.role, c.oid, 'update') as may
from pg_class c cross join unnest($1::text[]) as r (role)
where c.relnamespace = 'annals'::regnamespace and c.relkind = 'S'
union all
select 'the schema', r.role, has_schema_privilege(r.role, 'annals', 'create')
from unnest($1::text[]) as r (role)
order by 1, 2
