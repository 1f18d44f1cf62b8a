-- The read model of an account. $1 account. No row: there is none.
select owner, cents from balances.balances where account = $1
