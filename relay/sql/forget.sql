-- Lets go of a deployment. $1 deployment, $2 reason. One row: how much of it was removed. An error
-- while one of its relays runs, and if there is none of that name.
select checkpoints, entries, skipped from annals.relay_forget($1, $2)
