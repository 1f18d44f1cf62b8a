-- Reads the latest events by their times, which no index has. $1 earliest time.
select position from annals.events where recorded_at > $1 order by recorded_at desc limit 500
