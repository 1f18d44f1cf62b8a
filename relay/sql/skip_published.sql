-- Records events that topics already have as skipped. $1 deployment, $2 positions.
-- One row: how many of them the copied checkpoints do not cover.
select annals.relay_skip_published($1, $2) as skipped
