-- Begins a session.
-- $1 deployment, $2 its generation, $3 instance, $4 session, $5 its transactional ids, $6 lease in
-- milliseconds, $7 this process, $8 a session whose process has ended, or null.
-- One row: the outcome, and the living session if the instance's name is taken.
select outcome, living, living_process, joined_us, seen_us, expires_ms
from annals.relay_join($1, $2, $3, $4, $5, $6 * interval '1 millisecond', $7, $8)
