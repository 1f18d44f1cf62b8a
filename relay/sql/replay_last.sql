-- The last replay of a deployment before another one, 0 if there is none, and whether one is
-- unfinished. $1 deployment, $2 the other one. One row.
select
    coalesce(max(replay) filter (where replay < $2), 0) as last,
    max(replay) filter (where state = 'unfinished' and replay < $2) as unfinished
from annals.relay_replays
where deployment = $1
