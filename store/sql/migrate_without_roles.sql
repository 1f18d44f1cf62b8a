-- Lets the migrations of this transaction leave roles and owners alone.
select set_config('annals.without_roles', 'on', true)
