-- Whether the version of a projection that readers see has applied the events at these positions,
-- as far as it follows them. $1 projection, $2 positions.
-- No row: readers see no version.
select
    p.is_inline or not exists (
        select from unnest($2::bigint[]) w (position)
        left join annals.events e on e.position = w.position
        where (p.category is null or e.category is null or e.category = p.category)
            and (p.types is null or e.event_type is null or e.event_type = any (p.types))
            and not (
                case
                    when e.position is null
                        then exists (select from annals.removed_events r where r.position = w.position)
                    else annals.is_covered(e.position, e.xid, p.checkpoint)
                end
            )
    ) as has_seen
from annals.projections p
where p.name = $1 and p.is_active
