-- Copies checkpoints that are committed in Kafka; never moves a copy back, and writes nothing into
-- another database than the one that the events came from.
-- $1 deployment, $2 incarnation of that database, $3 shards, $4 positions, $5 checkpoints, in the
-- same order.
insert into annals.relay_checkpoints as c (deployment, shard, position, checkpoint, recorded_at)
select $1, n.shard, n.position, n.checkpoint, now()
from unnest($3::smallint[], $4::bigint[], $5::jsonb[]) as n (shard, position, checkpoint)
where annals.incarnation() = $2
on conflict (deployment, shard) do update set
    position = excluded.position, checkpoint = excluded.checkpoint, recorded_at = excluded.recorded_at
where c.position <= excluded.position
