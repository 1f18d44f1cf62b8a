-- The audit log of an actor, for people. $1 actor.
select position from annals.event_log where actor = $1 order by position
