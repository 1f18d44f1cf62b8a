-- The definition of a function or procedure of the store. $1 its name. One row.
select pg_get_functiondef(p.oid) from pg_proc p where p.pronamespace = 'annals'::regnamespace and p.proname = $1
