-- What an operator does once consumers are done with a topic that has other partitions now.
-- $1 topic.
delete from annals.relay_topics where topic = $1
