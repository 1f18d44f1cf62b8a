-- The events that a deployment does not publish, of those that these shards have still to come to.
-- $1 deployment, $2 snapshots up to which everything is published.
select p.position from annals.relay_passed p
join annals.events e on e.position = p.position
where p.deployment = $1
and exists (select from unnest($2::pg_snapshot[]) s (snapshot) where not pg_visible_in_snapshot(e.xid, s.snapshot))
