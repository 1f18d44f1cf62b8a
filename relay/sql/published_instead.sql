-- What the store has where other events were published. $1 streams, $2 versions, in the same order. A row where it has one.
select e.stream, e.version, e.event_id from unnest($1::text[], $2::bigint[]) as w (stream, version)
join annals.events e on e.stream = w.stream and e.version = w.version
