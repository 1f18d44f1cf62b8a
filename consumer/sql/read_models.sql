-- Selects the versions of a read model: whether readers see them, and the records by which each is
-- behind the version that they see: in the partitions that both read, and in all partitions of that
-- version before the first run. Transaction markers count.
-- $1 projection. No row: none is registered.
select r.version, s.version is not distinct from r.version as is_shown, b.records as records_behind
from annals_projections.annals_projection_read_models r
left join annals_projections.annals_projection_shown s on s.name = r.name
cross join lateral (
    select coalesce(sum(greatest(shown.next_offset - coalesce(own.next_offset, 0), 0)), 0)::bigint as records
    from annals_projections.annals_projection_offsets shown
    left join annals_projections.annals_projection_offsets own
        on own.projection = r.name || '_v' || r.version
        and own.topic = shown.topic and own.partition = shown.partition
    where shown.projection = s.name || '_v' || s.version
        and (own.projection is not null or not exists (
            select from annals_projections.annals_projection_offsets any_own
            where any_own.projection = r.name || '_v' || r.version
        ))
) b
where r.name = $1
order by r.version
