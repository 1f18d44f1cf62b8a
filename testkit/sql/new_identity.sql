-- A copy of a store becomes a store of its own.
update annals.identity set store_id = gen_random_uuid()
