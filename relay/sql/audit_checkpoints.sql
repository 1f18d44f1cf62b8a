-- Reads how far a deployment is published, and its quarantine, in one snapshot. $1 deployment.
-- One row each shard with a copied checkpoint (`kind` is null), and one each quarantine entry.
select c.shard, null::text as kind, null::text as name, c.checkpoint::text as cursor, null::text as cause, null::text as reason
from annals.relay_checkpoints c where c.deployment = $1
union all
select q.shard, q.kind, q.name, q.cursor::text, q.cause, q.reason
from annals.relay_quarantine q where q.deployment = $1
