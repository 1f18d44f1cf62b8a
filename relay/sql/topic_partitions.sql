-- Records the partition counts of topics when they are first published to.
-- $1 topics, $2 current partition counts, in the same order.
-- One row a topic: the count that was recorded first. No row if another relay records it at this
-- moment: ask again.
with wanted as (
    select w.topic, w.partitions from unnest($1::text[], $2::int[]) as w (topic, partitions)
),
recorded as (
    insert into annals.relay_topics (topic, partitions)
    -- In one order, so that two relays cannot deadlock.
    select w.topic, w.partitions from wanted w order by w.topic
    on conflict (topic) do nothing
    returning topic, partitions
)
select topic, partitions from recorded
union all
select t.topic, t.partitions from annals.relay_topics t join wanted w on w.topic = t.topic
