-- The time of the server, as text that it reads again.
select clock_timestamp()::text
