-- Reads the causal tree of an event, depth first. $1 event id, $2 maximum number of events.
select t.depth, e.position, e.stream, e.version, e.event_id, e.event_type, e.fingerprint, e.recorded_at, e.payload, e.metadata, e.headers
from annals.causal_tree($1, $2) with ordinality t (depth, "position", stream, version, event_id, event_type, recorded_at, actor, place)
join annals.all_events e on e.position = t.position
order by t.place
