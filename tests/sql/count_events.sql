-- How many events there are.
select count(*) as events from annals.events
