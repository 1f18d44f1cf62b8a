-- Changes the number of shards of the installation. $1 number, $2 the latest generation that Kafka
-- has checkpoints of, of any deployment.
select annals.relay_reshard($1, $2)
