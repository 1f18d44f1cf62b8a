-- The options of the tables to which rows are only added: events, and partitions of the outbox.
select distinct unnest(c.reloptions) as option
from pg_class c
where c.relnamespace = 'annals'::regnamespace and c.relkind = 'r'
    and case when $1 then c.relname = 'events' else c.relname ~ '^outbox_\d+$' end
order by option
