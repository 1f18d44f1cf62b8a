-- The applied events, in the order of application.
select stream, version from balances.balance_events order by number
