-- Counts what is there for others to see. Always one row.
select count(*) from public.plain
