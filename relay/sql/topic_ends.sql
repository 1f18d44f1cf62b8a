-- How far the topics of a deployment were written when a relay last said so. $1 deployment.
select topic, partition, end_offset from annals.relay_topic_ends where deployment = $1
