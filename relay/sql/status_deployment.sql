-- Reads a deployment and the partitions of the outbox. $1 deployment.
-- `delivery` and `generation` are null if no relay of the deployment has run. `droppable` counts
-- the partitions below the copied checkpoints of all deployments.
select
    d.delivery, d.generation, annals.shard_count() as shards, p.partitions, p.droppable,
    (select count(*) from (
        select distinct id from annals.relay_shards s, unnest(s.fence) as id where s.deployment = $1
    ) f) as unfenced
from (
    select
        count(*) as partitions,
        count(*) filter (
            where (substring(c.relname from 'outbox_([0-9]+)$')::bigint + 1) * annals.outbox_partition_positions() <= covered.position
        ) as droppable
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    cross join (
        select case when count(*) > 0 and min(shards) >= annals.shard_count() then min(position) end as position
        from (
            select count(*) as shards, min(position) as position from annals.relay_checkpoints group by deployment
        ) o
    ) covered
    where i.inhparent = 'annals.outbox'::regclass
) p
left join annals.relay_deployments d on d.deployment = $1
