-- Reads what stands in the tables that an append writes to, as one line for each table: how many
-- rows, and a hash over all of them. Always one row.
select format('streams %s, events %s, outbox %s', s.content, e.content, o.content)
from
    (select count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' order by t.name)), '-') as content
     from annals.streams t) s,
    (select count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' order by t.position)), '-') as content
     from annals.events t) e,
    (select count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' order by t.position)), '-') as content
     from annals.outbox t) o
