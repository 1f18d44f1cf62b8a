-- Which of these events the store has, by id. $1 ids. A row for each that it has.
select event_id, stream, version, position from annals.events where event_id = any ($1)
