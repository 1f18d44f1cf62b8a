-- As a relay that takes an event for published. $1 the event's id, $2 the publication.
insert into annals.relay_skipped (deployment, position)
select $2, position from annals.events where event_id = $1
