-- Lets an event have been recorded in an hour. $1 its id.
update annals.events set recorded_at = now() + interval '1 hour' where event_id = $1
