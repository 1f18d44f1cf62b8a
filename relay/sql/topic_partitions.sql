-- Records how many partitions a topic has when it is first published to.
-- $1 topic, $2 partitions now. One row: the count that was recorded first.
with recorded as (
    insert into annals.relay_topics (topic, partitions) values ($1, $2)
    on conflict (topic) do nothing
    returning partitions
)
select partitions from recorded
union all
select partitions from annals.relay_topics where topic = $1
limit 1
