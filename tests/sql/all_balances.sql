-- All balances that readers see, by account.
select account, cents from balances.balances order by account
