-- Wakes followers. $1 the channel.
select pg_notify($1, '')
