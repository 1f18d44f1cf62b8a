-- As a relay that is inside a window, up to the last position, writes it down. $1 deployment,
-- $2 how many of the shards, $3 snapshot at the window's end.
insert into annals.relay_checkpoints (deployment, shard, position, checkpoint, recorded_at)
select
    $1, shard, (select max(position) from annals.events),
    jsonb_build_object(
        'since', jsonb_build_object('snapshot', '3:3:', 'position', 0, 'settled', 0),
        'until', jsonb_build_object(
            'snapshot', $3::text, 'position', (select max(position) from annals.events), 'settled', 0
        ),
        'after', (select max(position) from annals.events)
    ),
    now()
from generate_series(0, $2::int - 1) as shard
on conflict (deployment, shard) do update set position = excluded.position, checkpoint = excluded.checkpoint
