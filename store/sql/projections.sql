-- Selects the names of all projections.
select distinct name from annals.projections order by name
