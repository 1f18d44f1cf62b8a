-- Counts the records by which a projection is behind another one, and lets neither commit a batch
-- until the end of the transaction. $1 projection, $2 the other one.
-- Null: the other one reads partitions that the projection does not read.
with locked as materialized (
    select o.projection, o.topic, o.partition, o.next_offset
    from annals_projections.annals_projection_offsets o
    where o.projection in ($1, $2)
    order by o.projection, o.topic, o.partition
    for share
)
select case
    when bool_and(own.next_offset is not null) is not false
    then coalesce(sum(greatest(other.next_offset - own.next_offset, 0)), 0)::bigint
end as records
from locked other
left join locked own
    on own.projection = $1 and own.topic = other.topic and own.partition = other.partition
where other.projection = $2
