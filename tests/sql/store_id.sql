-- The id of the store.
select store_id from annals.identity
