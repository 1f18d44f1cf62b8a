-- Moves the events of a closed stream into the archive; their number. $1 stream, $2 reason.
select annals.stream_archive($1, $2)
