-- Gives the lease back, so that the next session need not wait. $1 deployment, $2 session, $3 epoch.
update annals.relay_leases set expires_at = now()
where deployment = $1 and session = $2 and epoch = $3
