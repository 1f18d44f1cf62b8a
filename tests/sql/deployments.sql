-- The deployments of relays.
select deployment from annals.relay_deployments where forgotten_at is null
