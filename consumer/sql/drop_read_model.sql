-- Deletes a version of a read model from the tables of the progress.
-- $1 projection, $2 version, $3 the name of its progress.
-- No row: the version is not registered. An error if readers see it: annals_projection_shown refers
-- to it.
with gaps as (
    delete from annals_projections.annals_projection_gaps where projection = $3
), removals as (
    delete from annals_projections.annals_projection_removals where projection = $3
), letters as (
    delete from annals_projections.annals_projection_dead_letters where projection = $3
), versions as (
    delete from annals_projections.annals_projection_versions where projection = $3
), offsets as (
    delete from annals_projections.annals_projection_offsets where projection = $3
)
delete from annals_projections.annals_projection_read_models
where name = $1 and version = $2
returning version
