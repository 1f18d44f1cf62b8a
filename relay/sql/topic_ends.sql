-- Reads the recorded end offsets of a deployment's topics, one row for each partition. $1
-- deployment.
-- Up to `covered_offset`, the copied checkpoints of all instances cover what was written.
select topic, partition, max(end_offset) as end_offset, min(coalesce(covered_offset, 0)) as covered_offset
from annals.relay_topic_ends
where deployment = $1
group by topic, partition
