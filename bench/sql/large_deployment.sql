-- Creates a deployment that has published everything before a checkpoint. $1 its name and, after an
-- @, the prefix of its topics, $2 the checkpoint.
with created as (
    insert into annals.relay_deployments (deployment, delivery) values ($1, 'exactly-once')
)
insert into annals.relay_origins (deployment, shard, checkpoint)
select $1, s.shard, $2::text::jsonb from generate_series(0, annals.shard_count() - 1) s (shard)
