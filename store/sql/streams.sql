-- Lists a page of the streams of a category, by name.
-- $1 category, $2 name to start after, $3 maximum number of rows.
-- No row: the category has no further stream. The names of a category are between its name and its
-- name followed by '.'.
select
    s.name,
    greatest(s.version_min, (
        select e.version from annals.events e where e.stream = s.name order by e.version desc limit 1
    )) as version
from annals.streams s
where s.name >= $1 and s.name < $1 || '.' and s.name > $2
order by s.name
limit $3
