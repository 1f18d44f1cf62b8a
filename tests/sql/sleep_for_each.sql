-- Takes a tenth of a second for each event. $1 events.
select pg_sleep($1 * 0.1)
