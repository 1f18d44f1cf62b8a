-- Makes the caller the owner of partitions, so that a runner that owned them before commits nothing
-- more. Waits for a transaction of that runner.
-- $1 projection, $2 topics, $3 partitions, in pairs.
-- No row of a partition: the projection has never read its topic.
with claimed as (
    select o.projection, o.topic, o.partition
    from annals_projections.annals_projection_offsets o
    join unnest($2::text[], $3::integer[]) as wanted (topic, partition)
        on wanted.topic = o.topic and wanted.partition = o.partition
    where o.projection = $1
    -- Always in the same order: two runners that claim at once do not deadlock.
    order by o.topic, o.partition
    for update of o
)
update annals_projections.annals_projection_offsets o
set owner_epoch = o.owner_epoch + 1
from claimed
where o.projection = claimed.projection
  and o.topic = claimed.topic
  and o.partition = claimed.partition
returning o.topic, o.partition, o.next_offset, o.last_event, o.owner_epoch
