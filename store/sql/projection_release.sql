-- Ends the lease of a version of a projection. $1 projection, $2 version, $3 epoch.
-- No row changed: another runner has it.
update annals.projections set lease_until = null where name = $1 and version = $2 and epoch = $3
