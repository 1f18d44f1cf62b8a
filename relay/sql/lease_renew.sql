-- Prolongs the lease that a session holds.
-- $1 deployment, $2 session, $3 epoch, $4 lease in milliseconds.
-- No row: the lease was taken by another session.
update annals.relay_leases set expires_at = now() + $4 * interval '1 millisecond'
where deployment = $1 and session = $2 and epoch = $3
returning epoch
