-- Reads which deployments keep partitions of the outbox from being dropped. One row each
-- deployment, the one that keeps most first. `position`: it has published everything up to there;
-- null if a shard has no checkpoint. `kept` counts full partitions, `seconds` is the time since its
-- last checkpoint, `running` the number of its relays.
select
    c.deployment, c.position,
    (
        select count(*)
        from (
            select (substring(p.relname from 'outbox_(\d+)$')::bigint + 1) * annals.outbox_partition_positions() as upper
            from pg_inherits i join pg_class p on p.oid = i.inhrelid
            where i.inhparent = 'annals.outbox'::regclass
        ) o
        where o.upper > coalesce(c.position, 0) and o.upper <= (select coalesce(max(e.position), 0) from annals.events e)
    ) as kept,
    extract(epoch from now() - c.recorded_at)::double precision as seconds,
    (
        select count(*) from annals.relay_sessions s where s.deployment = c.deployment and s.expires_at > now()
    ) as running
from (
    select
        c.deployment, case when count(*) >= annals.shard_count() then min(c.position) end as position,
        max(c.recorded_at) as recorded_at
    from annals.relay_checkpoints c group by c.deployment
) c
order by coalesce(c.position, 0), c.deployment
