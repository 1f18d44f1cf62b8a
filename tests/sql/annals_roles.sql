-- Counts the roles of Annals.
select count(*) from pg_roles r where starts_with(r.rolname, 'annals_')
