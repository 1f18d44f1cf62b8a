-- Adopts the store into the current cluster.
-- $1 reason, $2 whether it becomes an independent store.
-- One row: its new identity.
select store_id, history, system_identifier, settled from annals.adopt($1, $2)
