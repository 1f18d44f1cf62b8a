-- Reads the recorded end offsets of topics that were published to.
-- $1 deployment, $2 topics. One row for each partition with records.
select e.topic, e.partition, e.end_offset
from annals.relay_topic_ends e
join annals.relay_topics t on t.topic = e.topic
where e.deployment = $1 and e.topic = any ($2) and e.end_offset > 0
