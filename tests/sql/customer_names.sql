-- The names in the read model.
select name from customers.customers order by name
