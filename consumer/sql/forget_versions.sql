-- Deletes the versions of a projection, so that it applies every event again.
-- $1 projection. No row changed: it has applied nothing.
delete from annals_projections.annals_projection_versions
where projection = $1
