-- Records that transactional ids are fenced. $1 deployment, $2 session, $3 shards, $4 their epochs,
-- $5 the ids.
select annals.relay_record_fenced($1, $2, $3, $4, $5)
