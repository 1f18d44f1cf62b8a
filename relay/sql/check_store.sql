-- Reads what a relay needs of a migrated store. One row; `missing` names the rights that this login
-- lacks.
select
    array(
        select 'select on ' || t from unnest(array[
            'annals.events', 'annals.outbox', 'annals.streams', 'annals.schemas', 'annals.identity', 'annals.relay_checkpoints'
        ]) t where not has_table_privilege(t, 'select')
        union all
        select 'insert and update on ' || t from unnest(array[
            'annals.relay_checkpoints', 'annals.relay_topics', 'annals.relay_schema_ids'
        ]) t where not (has_table_privilege(t, 'insert') and has_table_privilege(t, 'update'))
        union all
        select 'execute on ' || p.oid::regprocedure from pg_proc p
        where p.pronamespace = 'annals'::regnamespace
            and p.proname in ('relay_join', 'relay_renew_lease', 'relay_acquire_shards', 'outbox_extend', 'outbox_drop_published')
            and not has_function_privilege(p.oid, 'execute')
    ) as missing,
    annals.system_identifier() = i.system_identifier as is_own_cluster,
    (select s.seqcache from pg_sequence s where s.seqrelid = 'annals.positions'::regclass) as sequence_cache,
    (select d.delivery from annals.relay_deployments d where d.deployment = $1) as delivery,
    (select d.forgotten_at is not null from annals.relay_deployments d where d.deployment = $1) as is_forgotten
from annals.identity i where i.is_only
