-- Reads events that no record was found of. $1 positions, $2 shards with a checkpoint, $3 these
-- checkpoints, $4 deployment.
-- One row each event, in position order. `is_covered`: by the checkpoint it is published, skipped
-- or quarantined.
-- `skipped_by` is null if the event was not skipped by an operator; `is_skipped` also if a rebase
-- found it in a topic.
select
    e.position, e.stream, e.version, e.event_id, e.category, annals.shard_of(e.stream) as shard, e.xid::text as xid,
    (extract(epoch from e.recorded_at) * 1000000)::bigint as recorded_us,
    coalesce(annals.relay_is_published(e.position, e.xid, c.checkpoint::jsonb), false) as is_covered,
    s.stream is not null as is_skipped, a.reason as skip_reason, a.done_by as skipped_by
from unnest($1::bigint[]) as w (position)
join annals.events e on e.position = w.position
left join unnest($2::smallint[], $3::text[]) as c (shard, checkpoint) on c.shard = annals.shard_of(e.stream)
left join annals.relay_skipped s on s.deployment = $4 and s.position = e.position
left join lateral (
    select a.reason, a.done_by from annals.relay_actions a
    where a.deployment = $4 and a.verb = 'skip' and a.position = e.position
    order by a.action desc limit 1
) a on s.stream is not null
order by e.position
