-- Reads the recorded end offsets of a deployment's topics, one row for each partition.
-- $1 deployment.
-- Up to `covered_offset`, the copied checkpoints cover all records.
select topic, partition, end_offset, covered_offset
from annals.relay_topic_ends
where deployment = $1
