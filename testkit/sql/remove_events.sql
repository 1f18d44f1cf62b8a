-- Removes versions of a stream, as an administrator does. $1 stream, $2 first version, $3 version
-- behind the last.
delete from annals.events where stream = $1 and version >= $2 and version < $3
