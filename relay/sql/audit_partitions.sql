-- Reads the partition counts of topics when they were first published to. One row each topic.
select topic, partitions from annals.relay_topics
