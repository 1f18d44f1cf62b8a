-- Reports the phase and the wait of a relay. $1 deployment, $2 instance, $3 its readiness.
-- One row, without content.
select annals.relay_report($1, $2, $3)
