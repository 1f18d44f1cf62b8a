-- Selects the positions of the events that a version of a projection skips.
-- $1 projection, $2 version. No row: none.
select position from annals.projection_skips where name = $1 and version = $2
