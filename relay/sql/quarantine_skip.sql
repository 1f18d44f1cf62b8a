-- Passes over the event that holds a stream. $1 deployment, $2 stream, $3 the event's position, $4 reason.
-- One row: false if it is not this event that holds the stream.
select annals.relay_skip($1, $2, $3, $4) as is_skipped
