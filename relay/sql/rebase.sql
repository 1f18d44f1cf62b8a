-- Begins the deployment anew. $1 deployment, $2 reason.
select annals.relay_rebase($1, $2)
