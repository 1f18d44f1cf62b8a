-- Inserts offset 0 for each partition of a topic, unless the projection has read the topic before.
-- $1 projection, $2 topic, $3 number of partitions.
-- No row inserted: it has read the topic before, possibly with another number of partitions.
insert into annals_projections.annals_projection_offsets (projection, topic, partition, next_offset)
select $1, $2, partition, 0
from generate_series(0, $3 - 1) as partition
where not exists (
    select from annals_projections.annals_projection_offsets
    where projection = $1 and topic = $2
)
on conflict do nothing
