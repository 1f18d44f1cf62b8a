-- Whether the partitions of a topic have so many recorded records. $1 topic, $2 records.
select coalesce(sum(end_offset), 0) >= $2 from annals.relay_topic_ends where topic = $1
