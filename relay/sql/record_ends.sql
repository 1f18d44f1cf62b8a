-- Records the end offsets of topics.
-- $1 deployment, $2 instance, $3 incarnation of the database that the events came from, $4 topics,
-- $5 partitions, $6 end offsets, $7 the same offsets if every event before them is skipped, or
-- nulls; in the same order. One row, without content.
select annals.relay_record_ends($1, $2, $3, $4, $5, $6, $7)
