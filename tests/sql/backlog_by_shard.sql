-- Counts the events of each shard.
select shard::int as shard, count(*) as events from annals.outbox group by shard order by shard
