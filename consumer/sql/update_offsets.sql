-- Updates the next offsets of partitions, and locks their rows until the end of the transaction.
-- $1 projection; of each partition: $2 topics, $3 partitions, $4 expected offsets, $5 next offsets,
-- $6 events of the records before those.
-- Fewer rows changed than partitions given: another runner of the projection has updated some.
update annals_projections.annals_projection_offsets o
set next_offset = batch.next_offset, last_event = batch.last_event
from unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[], $6::uuid[])
    as batch (topic, partition, expected, next_offset, last_event)
where o.projection = $1
  and o.topic = batch.topic
  and o.partition = batch.partition
  and o.next_offset = batch.expected
