-- Reads the origin and the copied checkpoint of shards. $1 deployment, $2 shards. One row for each
-- shard that has one.
select s.shard, o.checkpoint as origin, c.checkpoint as copy
from unnest($2::smallint[]) as s (shard)
left join annals.relay_origins o on o.deployment = $1 and o.shard = s.shard
left join annals.relay_checkpoints c on c.deployment = $1 and c.shard = s.shard
where o.checkpoint is not null or c.checkpoint is not null
