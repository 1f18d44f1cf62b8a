-- The next events that a deployment does not publish, by position. $1 deployment, $2 first position, $3 most rows.
-- Fewer rows than asked for: there are no more of them.
select position from annals.relay_passed where deployment = $1 and position >= $2
order by position
limit $3
