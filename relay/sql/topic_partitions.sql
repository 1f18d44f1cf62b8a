-- Records how many partitions topics have when they are first published to.
-- $1 topics, $2 partitions now, in the same order. A row a topic: the count that was recorded first. No row for one that
-- somebody else records at this moment: ask again.
with wanted as (
    select w.topic, w.partitions from unnest($1::text[], $2::int[]) as w (topic, partitions)
),
recorded as (
    insert into annals.relay_topics (topic, partitions)
    -- In one order, so that two relays cannot wait for each other.
    select w.topic, w.partitions from wanted w order by w.topic
    on conflict (topic) do nothing
    returning topic, partitions
)
select topic, partitions from recorded
union all
select t.topic, t.partitions from annals.relay_topics t join wanted w on w.topic = t.topic
