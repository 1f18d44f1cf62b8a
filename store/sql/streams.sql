-- Lists a page of the streams of a category, by name.
-- $1 category, $2 name to start after, $3 maximum number of rows.
-- No row: the category has no further stream. The names of a category are between its name and its
-- name followed by '.'.
select name, version
from annals.streams
where name >= $1 and name < $1 || '.' and name > $2
order by name
limit $3
