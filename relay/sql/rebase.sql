-- Begins a new generation of the deployment from its copied checkpoints. $1 deployment, $2 reason,
-- $3 the latest generation that Kafka has checkpoints of.
select annals.relay_rebase($1, $2, $3)
