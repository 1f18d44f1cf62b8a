-- Reads the relays of a deployment that run, and the categories that are quarantined in each shard.
-- $1 deployment. One row.
select
    array(
        select s.instance from annals.relay_sessions s where s.deployment = $1 and s.expires_at > now() order by s.instance
    ) as running,
    array(
        select q.name from annals.relay_quarantine q
        where q.deployment = $1 and q.kind = 'category'
        group by q.name having count(*) >= annals.shard_count()
    ) as quarantined
