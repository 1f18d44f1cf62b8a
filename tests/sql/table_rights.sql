-- What each role may do to each table of the schema. $1 roles.
select
    c.relname::text as table,
    r.role,
    concat(
        case when has_table_privilege(r.role, c.oid, 'select') then 's' end,
        case when has_table_privilege(r.role, c.oid, 'insert') then 'i' end,
        case when has_table_privilege(r.role, c.oid, 'update') then 'u' end,
        case when has_table_privilege(r.role, c.oid, 'delete') then 'd' end,
        case when has_table_privilege(r.role, c.oid, 'truncate') then 't' end,
        case when has_table_privilege(r.role, c.oid, 'references') then 'r' end,
        case when has_table_privilege(r.role, c.oid, 'trigger') then 'g' end
    ) as rights
from pg_class c cross join unnest($1::text[]) as r (role)
where c.relnamespace = 'annals'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f')
order by 1, 2
