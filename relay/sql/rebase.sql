-- Begins a new generation of the deployment from its copied checkpoints. $1 deployment, $2 reason.
select annals.relay_rebase($1, $2)
