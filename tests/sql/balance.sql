-- The balance that readers see. $1 stream.
select cents from balances.balances where account = $1
