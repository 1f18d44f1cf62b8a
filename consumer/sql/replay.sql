-- Lets a projection read its topics from their beginning again.
-- $1 projection. No row: it has read nothing.
delete from annals_projections.annals_projection_offsets
where projection = $1
