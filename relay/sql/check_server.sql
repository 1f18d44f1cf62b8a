-- Reads what a relay needs of the server, whether or not the store is migrated. $1 schema, $2 age
-- in seconds of prepared transactions. One row.
select
    current_setting('server_version_num')::int / 10000 as major, current_setting('fsync') = 'on' as is_fsync,
    current_setting('full_page_writes') = 'on' as is_full_page_writes,
    current_setting('synchronous_commit') = 'off' as is_asynchronous, pg_is_in_recovery() as is_standby,
    current_setting('default_transaction_read_only') = 'on' as is_read_only,
    -- Also if the login has no right to use the schema.
    exists (select from pg_class c where c.relnamespace = to_regnamespace(quote_ident($1)) and c.relname = 'events') as is_migrated,
    pg_has_role(current_user, 'pg_read_all_stats', 'usage') as may_read_stats,
    (select count(*) from pg_prepared_xacts p where p.database = current_database() and p.prepared <= now() - $2 * interval '1 second')
        as prepared,
    (
        select coalesce(max(extract(epoch from now() - a.xact_start)), 0)::double precision from pg_stat_activity a
        where a.datname = current_database() and a.pid <> pg_backend_pid() and (a.backend_xid is not null or a.backend_xmin is not null)
    ) as oldest_transaction_seconds,
    (select count(*) from pg_replication_slots s where not s.active) as inactive_slots,
    extract(epoch from clock_timestamp())::double precision as clock
