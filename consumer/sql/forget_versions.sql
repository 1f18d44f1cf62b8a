-- Lets a projection apply every event again.
-- $1 projection. No row: it has applied nothing.
delete from annals_projections.annals_projection_versions
where projection = $1
