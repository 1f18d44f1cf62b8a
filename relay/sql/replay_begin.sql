-- Begins or resumes a replay. $1 deployment, $2 plan (null: resume), $3 reason, $4 session,
-- $5 lease in milliseconds. One row.
select outcome, replay, plan, left_ms
from annals.relay_begin_replay($1, $2, $3, $4, $5 * interval '1 millisecond')
