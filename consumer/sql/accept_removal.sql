-- Sets the next offset of a partition to the first record that it still has, and records why.
-- $1 projection, $2 topic, $3 partition, $4 first removed offset, $5 first offset that is left,
-- $6 reason.
-- No row inserted: the projection has continued since, or does not read the partition.
with continued as (
    update annals_projections.annals_projection_offsets
    set next_offset = $5, last_event = null
    where projection = $1 and topic = $2 and partition = $3 and next_offset = $4
    returning projection
)
insert into annals_projections.annals_projection_removals
    (projection, topic, partition, first_removed, next_offset, reason)
select projection, $2, $3, $4, $5, $6 from continued
on conflict do nothing
