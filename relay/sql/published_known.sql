-- Which of the events that topics have are in the store, by id; removed ones were. $1 ids.
select event_id, stream, version, position from annals.events where event_id = any ($1)
union all
select event_id, stream, version, position from annals.removed_events where event_id = any ($1)
