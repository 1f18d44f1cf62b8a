-- The indexes that have every event: each one's definition, and the statements that remove it and,
-- for a constraint, make the constraint of the index.
select
    pg_get_indexdef(x.indexrelid) as definition,
    case
        when c.oid is null then format('drop index annals.%I', i.relname)
        else format('alter table annals.events drop constraint %I', c.conname)
    end as removal,
    case c.contype
        when 'p' then format('alter table annals.events add constraint %I primary key using index %I', c.conname, i.relname)
        when 'u' then format('alter table annals.events add constraint %I unique using index %I', c.conname, i.relname)
    end as "constraint"
from pg_index x
join pg_class i on i.oid = x.indexrelid
left join pg_constraint c on c.conindid = x.indexrelid and c.conrelid = x.indrelid
where x.indrelid = 'annals.events'::regclass and x.indpred is null
order by i.relname desc
