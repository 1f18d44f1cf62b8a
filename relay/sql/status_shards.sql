-- Reads the shards of a deployment, one row each. $1 deployment.
-- `owner` is null if no relay owns the shard, `position` and `checkpoint_us` before its first
-- checkpoint.
select
    s.shard::smallint as shard, r.instance as owner, coalesce(l.epoch, 0) as epoch,
    coalesce(cardinality(l.fence), 0)::bigint as unfenced, c.position,
    (extract(epoch from c.recorded_at) * 1000000)::bigint as checkpoint_us
from generate_series(0, annals.shard_count() - 1) as s (shard)
left join annals.relay_checkpoints c on c.deployment = $1 and c.shard = s.shard
left join annals.relay_shards l on l.deployment = $1 and l.shard = s.shard
left join annals.relay_sessions r on r.session = l.owner and r.expires_at > now()
order by s.shard
