-- Changes the delivery of a deployment. $1 deployment, $2 delivery.
select annals.relay_deliver($1, $2)
