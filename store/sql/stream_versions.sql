-- Reads the versions of several streams, as of one moment.
-- $1 names.
-- One row for each name, in order; null: there is no such stream.
select s.version
from unnest($1::text[]) with ordinality g (name, place) left join annals.streams s on s.name = g.name
order by g.place
