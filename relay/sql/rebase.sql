-- Begins the deployment anew. $1 deployment, $2 positions of events that its topics have, $3 reason.
select annals.relay_rebase($1, $2, $3)
