-- Lets a projection skip the event at which it is stopped. $1 projection, $2 event id, $3 reason.
-- One row: the versions that were stopped there. An error if there is none.
select annals.projection_skip($1, $2, $3)
