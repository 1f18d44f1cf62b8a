-- Asks the relays to retry. $1 deployment, $2 name; null for everything, $3 reason.
-- One row: the number of entries.
select annals.relay_retry($1, $2, $3) as entries
