-- Records how far topics are written. $1 deployment, $2 instance, $3 incarnation of the database that the events came from, $4 topics,
-- $5 partitions, $6 ends, $7 the same ends where everything before them is passed, or nulls; in the same order. One row, of nothing.
select annals.relay_record_ends($1, $2, $3, $4, $5, $6, $7)
