-- What a deployment is; it begins with the first relay that asks. $1 deployment, $2 delivery as configured. One row.
select delivery, generation, shards from annals.relay_begin($1, $2)
