-- The number of events with `data`.
select count(*) from annals.events where data is not null
