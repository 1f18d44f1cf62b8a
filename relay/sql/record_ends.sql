-- Records how far topics are written. $1 deployment, $2 incarnation of the database that the events came from, $3 topics,
-- $4 partitions, $5 ends, in the same order. One row, of nothing.
select annals.relay_record_ends($1, $2, $3, $4, $5)
