-- Reads the versions of several streams, as of one moment.
-- $1 names.
-- One row for each name, in order; null: there is no such stream.
select
    case when s.name is not null then greatest(s.version_min, (
        select e.version from annals.events e where e.stream = s.name order by e.version desc limit 1
    )) end as version
from unnest($1::text[]) with ordinality g (name, place) left join annals.streams s on s.name = g.name
order by g.place
