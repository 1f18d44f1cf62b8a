-- As a relay that copies checkpoints which begin at the last position. $1 of how many shards.
insert into annals.relay_checkpoints (deployment, shard, position, checkpoint, recorded_at)
select 'test', shard, last.position, jsonb_build_object('since', jsonb_build_object('position', last.position)), now()
from generate_series(0, $1::int - 1) as shard, (select max(position) as position from annals.events) last
on conflict (deployment, shard) do update set position = excluded.position, checkpoint = excluded.checkpoint
