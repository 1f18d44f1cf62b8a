-- Notes how far holds got. $1 deployment, $2 session, $3 shards, $4 their epochs, $5 number of this step, $6 holds, $7 their
-- places, in the same order; null for those that have ended. One row: false if one of the leases is lost, or it comes too
-- late.
select annals.relay_holds_went_on($1, $2, $3, $4, $5, $6, $7) as is_noted
