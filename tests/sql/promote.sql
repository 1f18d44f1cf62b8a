-- Makes the standby a primary, and waits until it is one.
select pg_promote(true, 60)
