-- How many replays have ended, and how many have not.
select count(*) filter (where state <> 'unfinished') as ended, count(*) filter (where state = 'unfinished') as unfinished
from annals.relay_replays
