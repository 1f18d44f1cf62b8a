-- Counts the events that are recorded. Always one row.
select count(*) as events from annals.events
