-- The number of transactions that wrote the events. One row.
select count(distinct xid) from annals.events
