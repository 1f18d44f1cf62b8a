-- Skips the event that a stream is quarantined for. $1 deployment, $2 stream, $3 the event's
-- position, $4 reason.
-- One row: false if the stream is not quarantined for this event.
select annals.relay_skip($1, $2, $3, $4) as is_skipped
