-- Counts the events of the smallest table. Always one row.
select count(*) as events from minimal.events
