-- A relay's checkpoint that arrives late: it was read from another incarnation of this database, and the
-- session has its leases here as well. $1 that incarnation. One row: whether it is written.
select annals.relay_write_checkpoints(
    s.deployment, s.owner, array_agg(s.shard), array_agg(s.epoch), max(s.write_number) + 1, $1,
    array_agg(1000000::bigint), array_agg('{}'::jsonb)
)
from annals.relay_shards s
group by s.deployment, s.owner
