-- Opens a closed stream. $1 stream, $2 reason. False: it is open.
select annals.stream_reopen($1, $2)
