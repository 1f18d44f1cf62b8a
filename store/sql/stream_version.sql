-- Reads the version of a stream's last event.
-- $1 stream.
-- No row: there is no such stream.
select version from annals.streams where name = $1
