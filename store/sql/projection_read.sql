-- Selects the progress of a version of a projection. $1 projection, $2 version.
-- No row: there is no such version.
select checkpoint, is_inline from annals.projections where name = $1 and version = $2
