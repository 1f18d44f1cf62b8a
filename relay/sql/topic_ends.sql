-- How far the topics of a deployment were written when a relay last said so, and up to where the copies of all checkpoints are known
-- to cover what was written. $1 deployment. A row for each partition.
select topic, partition, end_offset, covered_offset
from annals.relay_topic_ends
where deployment = $1
