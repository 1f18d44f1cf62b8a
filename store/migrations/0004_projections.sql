-- Projections in this database: read models that the service builds from the log, each version in a
-- database schema of its own.

-- A version of a projection, its progress, and the lease of its runner.
create table annals.projections (
    name text collate "C" not null,
    version int not null check (version > 0),
    category text collate "C",
    types text[],
    is_active boolean not null default false,
    is_inline boolean not null default false,
    checkpoint jsonb,
    position bigint not null default 0,
    events bigint not null default 0,
    updated_at timestamptz not null default clock_timestamp(),
    owner text,
    epoch bigint not null default 0,
    lease_until timestamptz,
    lease interval,
    run_at timestamptz,
    run_position bigint not null default 0,
    run_events bigint not null default 0,
    failed_position bigint,
    failed_event uuid,
    failed_stream text,
    failed_version bigint,
    failed_type text,
    error text,
    failed_since timestamptz,
    attempts int not null default 0,
    retry_at timestamptz,
    primary key (name, version)
) with (fillfactor = 50);
create unique index projections_active on annals.projections (name) where is_active;

comment on table annals.projections is 'one row for each version of a projection; projection_status is for people';
comment on column annals.projections.category is 'of the followed events; null: all';
comment on column annals.projections.types is 'of the followed events; null: all';
comment on column annals.projections.is_active is 'readers see this version, through the views in the schema with the projection''s name';
comment on column annals.projections.is_inline is 'appends apply their events to it in their transaction, and no runner does';
comment on column annals.projections.checkpoint is 'written in the transaction of the events that it covers; null before the first';
comment on column annals.projections.position is 'where the checkpoint is in the log';
comment on column annals.projections.epoch is 'grows with each acquisition of the lease; only the runner with the present epoch can commit';
comment on column annals.projections.lease is 'how long the lease is: it ends no later than so long from now, also after the clock was set back';
comment on column annals.projections.run_at is 'begin of the present run, with its position and events then, for the rate';

-- Events that a version of a projection does not apply.
create table annals.projection_skips (
    name text collate "C" not null,
    version int not null,
    position bigint not null,
    event_id uuid not null,
    error text not null,
    reason text not null check (length(btrim(reason)) > 0),
    role text not null default session_user,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (name, version, position)
);
select annals.make_insert_only('annals.projection_skips');

comment on table annals.projection_skips is 'one row for each event that a version of a projection skips, and its last error; insert-only';

-- Whether a follower with this checkpoint has passed an event.
create function annals.is_covered(event_position bigint, xid xid8, checkpoint jsonb) returns boolean
language sql stable parallel safe
as $$
    select coalesce(
        annals.is_visible_at(
            event_position, xid, (checkpoint #>> '{since,snapshot}')::pg_snapshot,
            (checkpoint #>> '{since,position}')::bigint, (checkpoint #>> '{since,settled}')::bigint
        )
        or event_position <= (checkpoint ->> 'after')::bigint and annals.is_visible_at(
            event_position, xid, (checkpoint #>> '{until,snapshot}')::pg_snapshot,
            (checkpoint #>> '{until,position}')::bigint, (checkpoint #>> '{until,settled}')::bigint
        ),
        false
    )
$$;

-- The state of all versions of projections. The lag does not count events that an open transaction
-- committed late, behind later positions: the next batch has them.
create view annals.projection_status as
select
    p.name, p.version, p.is_active, p.is_inline, p.events, p.position, l.position as log_position,
    case when p.is_inline then 0 else greatest(l.position - p.position, 0) end as lag_positions,
    case when p.is_inline then null else n.recorded_at end as lag_since,
    case when p.lease_until > clock_timestamp() then p.owner end as owner,
    case when r.seconds > 0 then (p.events - p.run_events) / r.seconds end as events_per_second,
    case when r.seconds > 0 and p.position > p.run_position
        then make_interval(secs => greatest(l.position - p.position, 0) * r.seconds / (p.position - p.run_position))
    end as time_left,
    p.failed_event, p.failed_stream, p.failed_version, p.failed_type, p.error, p.failed_since, p.attempts, p.retry_at
from annals.projections p
cross join (select coalesce(max(e.position), 0) as position from annals.events e) l
cross join lateral (select extract(epoch from p.updated_at - p.run_at)::float8 as seconds) r
left join lateral (
    (
        select e.recorded_at from annals.events e
        where p.category is null and e.position > p.position
        order by e.position limit 1
    )
    union all
    (
        select e.recorded_at from annals.events e
        where e.category = p.category and e.position > p.position
        order by e.position limit 1
    )
) n on true;

comment on view annals.projection_status is 'progress, rate, lag, owner and failure of each version of a projection';
comment on column annals.projection_status.lag_positions is 'at least the number of events to apply; events of other categories count, too';
comment on column annals.projection_status.lag_since is 'when the first event to apply was recorded; null: there is none';
comment on column annals.projection_status.time_left is 'to the present end of the log, at the rate of the present run';

-- Lets a projection skip the event at which it is stopped, with the reason; the runner goes on at
-- once. Returns the versions that were stopped there. An error if there is none.
create function annals.projection_skip(projection text, event_id uuid, reason text) returns int[]
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
declare
    stopped int[];
begin
    with skipped as (
        insert into projection_skips (name, version, position, event_id, error, reason)
        select p.name, p.version, p.failed_position, p.failed_event, p.error, projection_skip.reason
        from projections p
        where p.name = projection and p.failed_event = projection_skip.event_id
        on conflict (name, version, position) do nothing
    )
    select array_agg(p.version order by p.version) into stopped
    from projections p
    where p.name = projection and p.failed_event = projection_skip.event_id;
    if stopped is null then
        raise exception 'projection % is not stopped at event %', projection, projection_skip.event_id
            using errcode = 'object_not_in_prerequisite_state', hint = 'projection_status has the event at which it is stopped.';
    end if;
    update projections p set retry_at = clock_timestamp() where p.name = projection and p.version = any (stopped);
    return stopped;
end
$$;

-- Waits until all appends in progress have ended, and keeps others waiting until the end of the
-- transaction: an append locks its streams first.
create function annals.projection_lock_appends() returns void
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    lock table streams in exclusive mode;
end
$$;

-- The database schema with the tables of a version.
create function annals.projection_schema(projection text, version int) returns text
language sql immutable parallel safe
as $$ select projection || '_v' || version $$;

-- Creates a database schema, unless it exists. A login without the right to create schemas can use
-- one that an administrator created for it.
create function annals.projection_create(schema text) returns void
language plpgsql
set search_path = annals, pg_temp
as $$
begin
    if to_regnamespace(quote_ident(schema)) is null then
        execute format('create schema %I', schema);
    end if;
end
$$;

-- Makes the views in the schema with the projection's name show the tables of this version. The
-- views of the version shown before are dropped. It runs with the rights of the caller, who owns
-- these schemas.
create function annals.projection_show(projection text, shown int, version int) returns void
language plpgsql
set search_path = annals, pg_temp
as $$
declare
    item record;
begin
    perform projection_create(projection);
    for item in
        select c.relname from pg_class c
        where c.relnamespace = to_regnamespace(projection_schema(projection, shown)) and c.relkind in ('r', 'p', 'v', 'm')
    loop
        execute format('drop view if exists %I.%I', projection, item.relname);
    end loop;
    for item in
        select c.relname from pg_class c
        where c.relnamespace = to_regnamespace(projection_schema(projection, projection_show.version))
            and c.relkind in ('r', 'p', 'v', 'm') and not c.relispartition
    loop
        execute format(
            'create view %I.%I as select * from %I.%I',
            projection, item.relname, projection_schema(projection, projection_show.version), item.relname
        );
    end loop;
end
$$;

-- Lets readers see a version of a projection instead of the present one, in one transaction. False,
-- and nothing changes, if the version is behind the present one, unless `even_if_behind`. An error
-- if there is no such version.
create function annals.projection_switch(projection text, version int, even_if_behind boolean default false) returns boolean
language plpgsql
set search_path = annals, pg_temp
as $$
declare
    wanted projections;
    active projections;
begin
    -- No batch of either version commits until the end of this transaction.
    perform from projections p
    where p.name = projection and (p.is_active or p.version = projection_switch.version)
    order by p.version
    for update;
    select p.* into wanted from projections p where p.name = projection and p.version = projection_switch.version;
    if not found then
        raise exception 'there is no version % of projection %', projection_switch.version, projection
            using errcode = 'no_data_found';
    end if;
    select p.* into active from projections p where p.name = projection and p.is_active;
    if wanted.is_active then
        return true;
    end if;
    -- The position of an inline version does not advance: it has everything.
    if not even_if_behind and not wanted.is_inline
        and wanted.position < (
            case when active.is_inline then (select coalesce(max(e.position), 0) from events e) else active.position end
        )
    then
        return false;
    end if;
    perform projection_show(projection, active.version, wanted.version);
    update projections p set is_active = false where p.name = projection and p.is_active;
    update projections p set is_active = true where p.name = projection and p.version = wanted.version;
    return true;
end
$$;

-- Deletes a version that readers do not see, with its tables. An error if they do, or if there is
-- no such version.
create function annals.projection_drop(projection text, version int) returns void
language plpgsql
set search_path = annals, pg_temp
as $$
begin
    delete from projections p
    where p.name = projection and p.version = projection_drop.version and not p.is_active;
    if not found then
        raise exception 'version % of projection % is active, or there is none', projection_drop.version, projection
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    execute format('drop schema if exists %I cascade', projection_schema(projection, projection_drop.version));
end
$$;
