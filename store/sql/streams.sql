-- A page of the streams of a category, by name. $1 category, $2 name after which to begin, $3 most rows.
-- No row: the category has no further stream. Names of a category lie between it and it with a '.'.
select name, version
from annals.streams
where name >= $1 and name < $1 || '.' and name > $2
order by name
limit $3
