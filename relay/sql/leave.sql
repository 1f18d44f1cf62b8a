-- Ends the session. $1 deployment, $2 session, $3 whether everything sent is committed.
select annals.relay_leave($1, $2, $3)
