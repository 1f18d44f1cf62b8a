-- Begins a session. $1 deployment, $2 its generation, $3 instance, $4 session, $5 its transactional ids, $6 lease in milliseconds.
-- One row: false if the deployment has another generation.
select annals.relay_join($1, $2, $3, $4, $5, $6 * interval '1 millisecond') as has_joined
