-- Where a projection goes on reading.
-- $1 projection, $2 topics. No row of a topic: the projection has never read it.
select topic, partition, next_offset
from annals_projections.annals_projection_offsets
where projection = $1 and topic = any ($2)
order by topic, partition
