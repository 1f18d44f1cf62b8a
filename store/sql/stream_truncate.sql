-- Removes the events of a stream below a version; their number. $1 stream, $2 version, $3 reason.
select annals.stream_truncate($1, $2, $3)
