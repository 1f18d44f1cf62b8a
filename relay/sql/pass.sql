-- Takes events that topics have for passed. $1 deployment, $2 positions. One row: how many were not known to be published.
select annals.relay_pass($1, $2) as passed
