-- Closes a stream. $1 stream, $2 reason. False: it is closed already.
select annals.stream_close($1, $2)
