-- Reads the progress of a deployment, one row a shard. $1 deployment. `owner` is null if no relay
-- owns the shard.
-- `waiting` counts the committed events that the copied checkpoint does not cover.
select
    s.shard::smallint as shard,
    c.position,
    (
        select r.instance from annals.relay_shards l
        join annals.relay_sessions r on r.session = l.owner and r.expires_at > now()
        where l.deployment = $1 and l.shard = s.shard
    ) as owner,
    (extract(epoch from c.recorded_at) * 1000000)::bigint as recorded_us,
    (
        select count(*) from annals.outbox o
        where o.shard = s.shard and (
            c.checkpoint is null or not annals.relay_is_published(o.position, o.xid, c.checkpoint)
        )
    ) as waiting
from generate_series(0, annals.shard_count() - 1) as s (shard)
left join annals.relay_checkpoints c on c.deployment = $1 and c.shard = s.shard
order by s.shard
