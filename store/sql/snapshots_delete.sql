-- Deletes the snapshots of a stream.
-- $1 stream.
delete from annals.snapshots where stream = $1
