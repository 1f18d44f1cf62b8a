-- The state of a stream. $1 stream. No row: there is no such stream.
select
    greatest(s.version_min, (
        select e.version from annals.events e where e.stream = s.name order by e.version desc limit 1
    )) as version,
    s.closed_at, s.truncated_before, s.archived_at
from annals.streams s
where s.name = $1
