-- Deletes the offsets of a projection, so that it reads its topics from their beginning again.
-- $1 projection. No row changed: it has read nothing.
delete from annals_projections.annals_projection_offsets
where projection = $1
