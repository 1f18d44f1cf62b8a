-- Reads which store and cluster this is, in one row. `databases` are those of the cluster,
-- `publications` those that the store knows.
select
    annals.system_identifier() as system_identifier,
    (select d.oid::bigint from pg_database d where d.datname = current_database()) as database_oid,
    array(select d.oid::bigint from pg_database d order by d.oid) as database_oids,
    array(select d.datname::text from pg_database d order by d.oid) as database_names,
    array(select d.deployment from annals.relay_deployments d order by d.deployment) as publications
