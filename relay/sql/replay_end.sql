-- Ends a replay. $1 replay, $2 session, $3 state, $4 events. One row: false if another process
-- replays it.
select annals.relay_end_replay($1, $2, $3, $4)
