-- Counts the registered versions of a schema. $1 full name. Always one row.
select count(*) from annals.schemas where full_name = $1
