-- Reads the transactional ids to fence before these leases are published: one row; null if a lease
-- is lost.
-- $1 deployment, $2 session, $3 shards, $4 their epochs, in the same order.
select annals.relay_ids_to_fence($1, $2, $3, $4) as transactional_ids
