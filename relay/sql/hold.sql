-- Holds what was refused. $1 deployment, $2 session, $3 shards, $4 their epochs, $5 number of this step, $6 incarnation of the
-- database that the places are of, $7 where the shards stand, $8 what was refused. One row: false if one of the leases is lost,
-- or the database is another, or it comes too late.
select annals.relay_hold($1, $2, $3, $4, $5, $6, $7, $8) as is_held
