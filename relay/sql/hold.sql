-- Holds what was refused. $1 deployment, $2 session, $3 shards, $4 their epochs, $5 number of this step, $6 where they
-- stand, $7 what was refused. One row: false if one of the leases is lost, or it comes too late.
select annals.relay_hold($1, $2, $3, $4, $5, $6, $7) as is_held
