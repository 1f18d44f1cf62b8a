-- Inserts offset 0 for each partition of a topic that has no offset yet: of a new topic, or added
-- to one that the projection has read before.
-- $1 projection, $2 topic, $3 number of partitions.
-- One row: the number of partitions before; $3 of a new topic.
with recorded as (
    select coalesce(max(partition) + 1, $3) as partitions
    from annals_projections.annals_projection_offsets
    where projection = $1 and topic = $2
), inserted as (
    insert into annals_projections.annals_projection_offsets
        (projection, topic, partition, next_offset)
    select $1, $2, partition, 0
    from generate_series(0, $3 - 1) as partition
    on conflict do nothing
)
select partitions from recorded
