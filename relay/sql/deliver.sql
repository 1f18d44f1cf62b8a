-- Changes the delivery of a deployment. $1 deployment, $2 delivery, $3 the latest generation that
-- Kafka has checkpoints of.
select annals.relay_deliver($1, $2, $3)
