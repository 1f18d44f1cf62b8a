-- Reads the versions of some streams as they are at one instant. $1 names.
-- A stream that does not exist gives no row.
select
    s.name,
    greatest(s.version_min, (
        select e.version from annals.events e where e.stream = s.name order by e.version desc limit 1
    )) as version
from annals.streams s
where s.name = any ($1)
order by s.name
