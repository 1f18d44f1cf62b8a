-- The transactional ids to be fenced before these leases are published: one row; null if one of the leases is lost.
-- $1 deployment, $2 session, $3 shards, $4 their epochs, in the same order.
select annals.relay_to_fence($1, $2, $3, $4) as transactional_ids
