-- Up to where the copies of checkpoints are known to cover that partition.
select covered_offset from annals.relay_topic_ends where deployment = 'test'
