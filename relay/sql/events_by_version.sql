-- Reads which events the store has under given versions. $1 streams, $2 versions, in the same
-- order.
-- No row for a version that it does not have.
select e.stream, e.version, e.event_id from unnest($1::text[], $2::bigint[]) as w (stream, version)
join annals.events e on e.stream = w.stream and e.version = w.version
