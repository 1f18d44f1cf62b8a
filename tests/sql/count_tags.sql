-- The tags of all events. One row.
select count(*) from annals.tags
