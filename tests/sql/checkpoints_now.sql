-- As a relay that has published everything up to now writes it down. $1 deployment, $2 how many of
-- the shards.
insert into annals.relay_checkpoints (deployment, shard, position, checkpoint, recorded_at)
select
    $1, shard, (select max(position) from annals.events),
    jsonb_build_object(
        'since', jsonb_build_object(
            'snapshot', pg_current_snapshot()::text, 'position', (select max(position) from annals.events), 'settled', 0
        ),
        'until', null
    ),
    now()
from generate_series(0, $2::int - 1) as shard
on conflict (deployment, shard) do update set position = excluded.position, checkpoint = excluded.checkpoint
