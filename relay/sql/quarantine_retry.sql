-- Asks the relays to try again. $1 deployment, $2 name, null for everything, $3 reason.
-- One row: how many holds that is.
select annals.relay_retry($1, $2, $3) as wanted
