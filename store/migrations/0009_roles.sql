-- Roles and privileges.
--
--   annals_owner   owns all objects; it has no login
--   annals_append  appends, through the functions, and reads
--   annals_read    reads and follows
--   annals_relay   reads, and writes the relay's state
--   annals_admin   reads, and may change recorded events after annals.administer(reason), logged
--
-- Roles belong to the whole cluster. Give a login its privileges with `grant annals_append to app`.

-- Lets the current user act as a role. Since PostgreSQL 16 the creator of a role may not do so
-- without a grant. False if the grant is not permitted.
create function annals.join_role(role name) returns boolean
language plpgsql
set search_path = annals, pg_temp
as $$
begin
    if current_setting('server_version_num')::int < 160000 then
        if not pg_has_role(join_role.role, 'usage') then
            execute format('grant %I to %I', join_role.role, current_user);
        end if;
    elsif not pg_has_role(join_role.role, 'usage') or not pg_has_role(join_role.role, 'set') then
        execute format('grant %I to %I with inherit true, set true', join_role.role, current_user);
    end if;
    return true;
exception
    when insufficient_privilege then
        return false;
end
$$;

-- The statements that give a role the rights for a purpose: `append`, `read`, `relay` or `admin`,
-- as described above. For installations whose roles another tool manages: `apply_roles` executes
-- exactly these.
create function annals.grants_for(purpose text, role text) returns setof text
language plpgsql stable
set search_path = annals, pg_temp
as $$
#variable_conflict use_variable
declare
    item record;
begin
    if purpose not in ('append', 'read', 'relay', 'admin') then
        raise exception 'no grants for %: append, read, relay or admin', purpose using errcode = 'invalid_parameter_value';
    end if;
    return next format('grant usage on schema annals to %I', role);
    return next format(
        'grant select on annals.migrations, annals.identity, annals.adoptions, annals.streams, annals.events, '
        'annals.removed_events, annals.archived_events, annals.all_events, annals.outbox, annals.outbox_dropped, annals.schemas, annals.tags to %I',
        role
    );
    return next format(
        'grant execute on function annals.oldest_client(), annals.position_at(timestamptz), annals.shard_of(text), '
        'annals.shard_count(), annals.outbox_partition_positions(), annals.system_identifier(), annals.incarnation(), '
        'annals.is_visible_at(bigint, xid8, pg_snapshot, bigint, bigint), '
        'annals.late_events(pg_snapshot, xid8, bigint, bigint, pg_snapshot, boolean, bigint) to %I',
        role
    );
    for item in
        select format('annals.%I(%s)', p.proname, pg_get_function_identity_arguments(p.oid)) as name, p.proname as short
        from pg_proc p
        where p.pronamespace = 'annals'::regnamespace
        order by 1
    loop
        if purpose = 'append' and item.short in (
                'append', 'append_and_commit', 'append_each', 'append_each_and_commit', 'append_tagged', 'append_tagged_and_commit', 'register_schema', 'outbox_extend',
                'projection_lock_appends', 'projection_schema', 'projection_create', 'projection_show', 'projection_switch',
                'projection_drop', 'personal_key_create', 'personal_fence', 'personal_destroy'
            )
            or purpose = 'admin' and item.short in (
                'personal_rotated', 'personal_rewrap', 'stream_close', 'stream_reopen', 'stream_truncate', 'stream_archive',
                'stream_restore'
            )
            or purpose in ('append', 'admin') and item.short = 'projection_skip'
            or purpose <> 'relay' and item.short in ('is_covered', 'causal_tree')
            -- Only these functions change leases.
            or purpose = 'relay' and (
                item.short in ('outbox_extend', 'outbox_drop_published')
                or starts_with(item.short, 'relay_') and item.short not in (
                    'relay_lock', 'relay_lock_stopped', 'relay_expire_sessions', 'relay_admit_write', 'relay_forget',
                    'relay_begin_generation', 'relay_reshard', 'relay_deliver', 'relay_rebase', 'relay_skip_published',
                    'relay_checkpoint_now', 'relay_release_topics', 'relay_begin_replay', 'relay_renew_replay', 'relay_end_replay'
                )
            )
            or purpose = 'admin' and item.short in (
                'administer', 'adopt', 'relay_forget', 'relay_reshard', 'relay_deliver', 'relay_rebase', 'relay_skip_published',
                'relay_record_ends', 'relay_retry', 'relay_skip', 'relay_release_topics', 'relay_begin_replay',
                'relay_renew_replay', 'relay_end_replay'
            )
        then
            return next format('grant execute on routine %s to %I', item.name, role);
        end if;
    end loop;
    if purpose <> 'relay' then
        -- The keys are encrypted: only the key provider can decrypt them.
        return next format('grant select on annals.personal_keys, annals.personal_wrapping, annals.event_log to %I', role);
        return next format(
            'grant select on annals.projections, annals.projection_skips, annals.projection_status to %I', role
        );
    end if;
    if purpose = 'append' then
        -- A service runs its projections.
        return next format('grant insert, update, delete on annals.projections to %I', role);
        -- A cache, which each appender writes.
        return next format('grant select, insert, update, delete on annals.snapshots to %I', role);
    else
        for item in
            select format('annals.%I', c.relname) as name from pg_class c
            where c.relnamespace = 'annals'::regnamespace and c.relkind = 'r' and starts_with(c.relname, 'relay_')
        loop
            return next format('grant select on %s to %I', item.name, role);
        end loop;
    end if;
    if purpose = 'relay' then
        return next format(
            'grant insert, update on annals.relay_checkpoints, annals.relay_topics, annals.relay_schema_ids to %I', role
        );
    elsif purpose = 'read' then
        return next format('grant select on annals.snapshots to %I', role);
    elsif purpose = 'admin' then
        return next format('grant select, delete on annals.snapshots to %I', role);
        return next format('grant update, delete on annals.streams, annals.events, annals.outbox, annals.schemas, annals.tags to %I', role);
        return next format('grant select on annals.admin_log to %I', role);
    end if;
end
$$;

-- Creates missing roles, and grants each role exactly the privileges that it needs. It can be
-- repeated.
--
-- For an administrator with CREATEROLE, who need not be a superuser. Without the right to create
-- roles it changes nothing, warns, and returns false: all objects stay with the migrating user. If
-- another administrator created the roles and has not made the current user a member of
-- annals_owner, the other roles get their privileges, and the objects stay with the current user.
create function annals.apply_roles() returns boolean
language plpgsql
set search_path = annals, pg_temp
as $$
declare
    wanted constant text[] := array['annals_owner', 'annals_append', 'annals_read', 'annals_relay', 'annals_admin'];
    began_as constant text := current_setting('role');
    role text;
    item record;
begin
    foreach role in array wanted loop
        begin
            if not exists (select from pg_roles r where r.rolname = role) then
                execute format('create role %I nologin', role);
            end if;
        exception
            -- A concurrent migration of another database creates the same role.
            when duplicate_object or unique_violation or internal_error then
                null;
            when insufficient_privilege then
                raise warning 'the roles of Annals are missing and % may not create them: everything stays with it', current_user
                    using hint = 'As an administrator with CREATEROLE: select annals.apply_roles()';
                return false;
        end;
    end loop;

    if join_role('annals_owner') then
        -- The schema first: the new owner of a table needs the right to create tables in it.
        execute 'alter schema annals owner to annals_owner';
        for item in
            select c.oid::regclass as name from pg_class c
            where c.relnamespace = 'annals'::regnamespace and c.relkind in ('r', 'p', 'v')
        loop
            execute format('alter table %s owner to annals_owner', item.name);
        end loop;
        alter sequence annals.positions owner to annals_owner;
        for item in select p.oid::regprocedure as name from pg_proc p where p.pronamespace = 'annals'::regnamespace loop
            execute format('alter routine %s owner to annals_owner', item.name);
        end loop;
        -- Only the owner can grant privileges.
        perform set_config('role', 'annals_owner', true);
    else
        raise warning 'the role annals_owner is another administrator''s: what % migrated stays with it', current_user
            using hint = format(
                'As that administrator: grant annals_owner to %I with admin option; then: select annals.apply_roles()',
                current_user
            );
    end if;

    revoke all on all tables in schema annals from public, annals_append, annals_read, annals_relay, annals_admin;
    revoke all on all sequences in schema annals from public, annals_append, annals_read, annals_relay, annals_admin;
    revoke all on all routines in schema annals from public, annals_append, annals_read, annals_relay, annals_admin;
    foreach role in array array['append', 'read', 'relay', 'admin'] loop
        for item in select g.statement from grants_for(role, 'annals_' || role) g (statement) loop
            execute item.statement;
        end loop;
    end loop;
    perform set_config('role', began_as, true);
    return true;
end
$$;

-- Security definers do work that their callers may not do.
revoke all on all routines in schema annals from public;

-- Without roles, all objects stay with the migrating user, and `grants_for` has the statements for
-- the roles of the installation.
select annals.apply_roles() where current_setting('annals.without_roles', true) is distinct from 'on';
