-- Records a record that a projection cannot apply. A record at the same place replaces it: its
-- topic was created again, or the projection reads it again.
-- $1 projection, $2 topic, $3 partition, $4 offset, $5 key, $6 value, $7 names and $8 values of
-- headers; of an event: $9 stream, $10 version, $11 id, $12 type; $13 error.
insert into annals_projections.annals_projection_dead_letters (
    projection, topic, partition, record_offset, key, value, header_names, header_values,
    stream, version, event_id, event_type, error
)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
on conflict (projection, topic, partition, record_offset) do update set
    key = excluded.key,
    value = excluded.value,
    header_names = excluded.header_names,
    header_values = excluded.header_values,
    stream = excluded.stream,
    version = excluded.version,
    event_id = excluded.event_id,
    event_type = excluded.event_type,
    error = excluded.error,
    recorded_at = clock_timestamp()
