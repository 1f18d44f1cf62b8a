-- Reads the prerequisites of a rebase. $1 deployment.
-- One row: the running relays, and the transactional ids that may have an open transaction.
select
    array(
        select s.instance from annals.relay_sessions s
        where s.deployment = $1 and s.expires_at > now() order by s.instance
    ) as running,
    array(
        select distinct id from (
            select unnest(s.fence) as id from annals.relay_shards s where s.deployment = $1
            union all
            select unnest(s.transactional_ids) from annals.relay_sessions s where s.deployment = $1
        ) ids
    ) as transactional_ids
