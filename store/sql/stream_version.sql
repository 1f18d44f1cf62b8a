-- Reads the version of a stream's last event.
-- $1 stream.
-- No row: there is no such stream.
select
    greatest(s.version_min, (
        select e.version from annals.events e where e.stream = s.name order by e.version desc limit 1
    )) as version
from annals.streams s
where s.name = $1
