-- Moves partitions from the offset where this runner found them to the one behind its batch, and locks
-- them until the transaction ends.
-- $1 projection; of each partition: $2 topics, $3 partitions, $4 expected offsets, $5 next offsets,
-- $6 events before those.
-- Fewer rows changed than partitions given: another runner of the projection has moved some.
update annals_projections.annals_projection_offsets o
set next_offset = batch.next_offset, last_event = batch.last_event
from unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::uuid[])
    as batch (topic, partition, expected, next_offset, last_event)
where o.projection = $1
  and o.topic = batch.topic
  and o.partition = batch.partition
  and o.next_offset = batch.expected
