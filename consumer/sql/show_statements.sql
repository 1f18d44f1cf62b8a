-- Lists the statements that make the views in a database schema show the tables of another one.
-- $1 schema of the views, $2 schema of the tables that they show now, or null, $3 schema to show.
with relations as (
    select n.nspname as schema, c.relname as name, c.relispartition as is_partition
    from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname::text in ($2::text, $3::text) and c.relkind in ('r', 'p', 'v', 'm')
)
select s.statement
from (
    select 1 as number, format('drop view if exists %I.%I', $1::text, r.name) as statement
    from relations r
    where r.schema = $2::text
    union all
    select 2, format('create view %I.%I as select * from %I.%I', $1::text, r.name, r.schema, r.name)
    from relations r
    where r.schema = $3::text and not r.is_partition
) s
order by s.number, s.statement
