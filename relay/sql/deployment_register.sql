-- Reads the facts of a deployment; the first relay of a deployment creates it. $1 deployment, $2
-- configured delivery. One row.
select delivery, generation, shards from annals.relay_register_deployment($1, $2)
