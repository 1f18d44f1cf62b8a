-- Moves the events of an archived stream back; their number. $1 stream, $2 reason.
select annals.stream_restore($1, $2)
