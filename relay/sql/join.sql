-- Begins a session. $1 deployment, $2 instance, $3 session, $4 its transactional ids, $5 lease in milliseconds.
select annals.relay_join($1, $2, $3, $4, $5 * interval '1 millisecond')
