-- Reads the positions of skipped events in order. $1 deployment, $2 first position, $3 limit.
-- Fewer rows than the limit: there are no more.
select position from annals.relay_skipped where deployment = $1 and position >= $2
order by position
limit $3
