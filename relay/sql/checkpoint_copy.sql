-- Copies checkpoints that are committed in Kafka, for clean-up and for people; never moves one back.
-- $1 deployment, $2 shards, $3 positions, $4 checkpoints, in the same order.
insert into annals.relay_checkpoints as c (deployment, shard, position, checkpoint, recorded_at)
select $1, n.shard, n.position, n.checkpoint, now()
from unnest($2::smallint[], $3::bigint[], $4::jsonb[]) as n (shard, position, checkpoint)
on conflict (deployment, shard) do update set
    position = excluded.position, checkpoint = excluded.checkpoint, recorded_at = excluded.recorded_at
where c.position <= excluded.position
