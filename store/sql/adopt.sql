-- Takes the store over into the cluster that it is in now. $1 the reason, $2 whether it becomes a store of its own.
-- One row: what it is now.
select store_id, history, system_identifier, settled from annals.adopt($1, $2)
