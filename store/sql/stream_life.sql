-- The state of a stream. $1 stream. No row: there is no such stream.
select version, closed_at, truncated_before, archived_at from annals.streams where name = $1
