-- Whether so many events have come here. $1 how many.
select count(*) = $1 from annals.events
