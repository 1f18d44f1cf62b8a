-- Renews the lease of a replay. $1 replay, $2 session, $3 lease in milliseconds, $4 events. One
-- row: false if it is lost.
select annals.relay_renew_replay($1, $2, $3 * interval '1 millisecond', $4)
