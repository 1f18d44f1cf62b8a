-- Finds the events whose predecessor in their stream is not published: an operator skipped it, or
-- an administrator removed it. $1 deployment, $2 streams, $3 versions, in the same order. One row
-- for each such event: its index, from 1, and the version of the previous published event of its
-- stream; null: there is none.
select
    w.index,
    (
        select e.version from annals.events e
        where e.stream = w.stream and e.version < w.version
        and not exists (
            select from annals.relay_skipped s
            where s.deployment = $1 and s.stream = e.stream and s.version = e.version
        )
        order by e.version desc limit 1
    ) as version
from unnest($2::text[], $3::bigint[]) with ordinality as w (stream, version, index)
where exists (
    select from annals.relay_skipped s
    where s.deployment = $1 and s.stream = w.stream and s.version = w.version - 1
) or exists (
    select from annals.removed_events r where r.stream = w.stream and r.version = w.version - 1
)
