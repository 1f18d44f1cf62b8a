-- Selects the next offsets of a projection.
-- $1 projection, $2 topics. No row of a topic: the projection has never read it.
-- No last event: it has read nothing of the partition, or its offset was set by hand.
select topic, partition, next_offset, last_event, owner_epoch
from annals_projections.annals_projection_offsets
where projection = $1 and topic = any ($2)
order by topic, partition
