-- The end of streams: closed, truncated, archived. All of it is administration, logged with a
-- reason.

alter table annals.streams
    add column closed_at timestamptz,
    add column truncated_before bigint,
    add column archived_at timestamptz;
comment on column annals.streams.closed_at is 'a closed stream (tombstone) refuses appends; its events are read';
comment on column annals.streams.truncated_before is 'events below this version were removed for good';
comment on column annals.streams.archived_at is 'the events of a closed stream are in archived_events';

-- The events of archived streams, out of the table that appends and readers of the log use.
create table annals.archived_events (like annals.events);
alter table annals.archived_events add constraint archived_events_pkey primary key (stream, version);
create unique index archived_events_position on annals.archived_events (position);
create index archived_events_event_id on annals.archived_events (event_id);
create index archived_events_category on annals.archived_events (category, position);
create index archived_events_correlation on annals.archived_events ((metadata ->> 'correlation_id'), position)
    where metadata ->> 'correlation_id' is not null;
create index archived_events_causation on annals.archived_events ((metadata ->> 'causation_id'), position)
    where metadata ->> 'causation_id' is not null;
select annals.make_insert_only('annals.archived_events');
comment on table annals.archived_events is 'events of archived streams, as they were recorded; insert-only';

create view annals.all_events as select e.* from annals.events e union all select a.* from annals.archived_events a;
comment on view annals.all_events is 'all events, also those of archived streams';

-- The refusals of an append to closed streams, as a JSON array. Streams without events of the
-- append are only checked.
create function annals.append_closed(streams text[], counts bigint[]) returns jsonb
language plpgsql stable
set search_path = annals, pg_temp
as $$
begin
    return coalesce(
        (
            select jsonb_agg(jsonb_build_object('kind', 'stream_closed', 'stream', s.name, 'closed_at', s.closed_at) order by n.place)
            from unnest(streams, counts) with ordinality n (name, events, place) join annals.streams s on s.name = n.name
            where s.closed_at is not null and n.events > 0
        ),
        '[]'
    );
end
$$;

-- Locks a stream for a change of its life, and logs the reason.
create function annals.stream_administer(stream text, reason text) returns annals.streams
language plpgsql
set search_path = annals, pg_temp
as $$
declare
    found_stream streams;
begin
    select s.* into found_stream from streams s where s.name = stream_administer.stream for update;
    if not found then
        raise exception 'there is no stream %', stream_administer.stream using errcode = 'no_data_found';
    end if;
    perform administer(stream_administer.reason);
    return found_stream;
end
$$;

-- Closes a stream: it refuses appends from here on. False: it is closed already.
create function annals.stream_close(stream text, reason text) returns boolean
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    perform stream_administer(stream_close.stream, stream_close.reason);
    update streams s set closed_at = clock_timestamp() where s.name = stream_close.stream and s.closed_at is null;
    return found;
end
$$;

-- Opens a closed stream. False: it is open.
create function annals.stream_reopen(stream text, reason text) returns boolean
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    if (stream_administer(stream_reopen.stream, stream_reopen.reason)).archived_at is not null then
        raise exception 'stream % is archived: restore it first', stream_reopen.stream
            using errcode = 'object_not_in_prerequisite_state';
    end if;
    update streams s set closed_at = null where s.name = stream_reopen.stream and s.closed_at is not null;
    return found;
end
$$;

-- Who has not read an event of a stream below a version yet: deployments of relays, and followed
-- projections. For them, events that leave the table would be missing.
create function annals.stream_unread_by(stream text, before bigint) returns setof text
language sql stable
set search_path = annals, pg_temp
as $$
    with removable as (
        select e.position, e.xid from events e where e.stream = stream_unread_by.stream and e.version < before
    )
    select 'deployment ' || d.deployment
    from relay_deployments d
    where d.forgotten_at is null and exists (
        select from removable e
        where not exists (
            select from relay_checkpoints c
            where c.deployment = d.deployment and c.shard = shard_of(stream_unread_by.stream)
                and is_covered(e.position, e.xid, c.checkpoint || jsonb_build_object('after', c.position))
        )
    )
    union all
    select format('projection %s version %s', p.name, p.version)
    from projections p
    where not p.is_inline and exists (
        select from removable e where p.checkpoint is null or not is_covered(e.position, e.xid, p.checkpoint)
    )
$$;

create function annals.refuse_unread(stream text, before bigint) returns void
language plpgsql stable
set search_path = annals, pg_temp
as $$
declare
    readers constant text := (select string_agg(r.reader, ', ') from stream_unread_by(refuse_unread.stream, before) r (reader));
begin
    if readers is not null then
        raise exception 'events of stream % are not read yet by: %', refuse_unread.stream, readers
            using errcode = 'object_not_in_prerequisite_state';
    end if;
end
$$;

-- Removes the events of a stream below a version, for good; their number. The last event stays.
create function annals.stream_truncate(stream text, before bigint, reason text) returns bigint
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
declare
    truncated constant streams := stream_administer(stream_truncate.stream, stream_truncate.reason);
    version constant bigint := stream_version(truncated.name);
    removed bigint;
begin
    if before > version then
        raise exception 'stream % ends with version %: a truncation before % would remove its last event',
            truncated.name, version, before using errcode = 'invalid_parameter_value';
    end if;
    perform refuse_unread(truncated.name, before);
    delete from events e where e.stream = truncated.name and e.version < before;
    get diagnostics removed = row_count;
    update streams s set truncated_before = greatest(s.truncated_before, before) where s.name = truncated.name;
    return removed;
end
$$;

-- Moves the events of a closed stream out of the table of events; their number.
create function annals.stream_archive(stream text, reason text) returns bigint
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
declare
    archived constant streams := stream_administer(stream_archive.stream, stream_archive.reason);
    moved bigint;
begin
    if archived.closed_at is null then
        raise exception 'stream % is open: close it first', archived.name using errcode = 'object_not_in_prerequisite_state';
    end if;
    perform refuse_unread(archived.name, stream_version(archived.name) + 1);
    insert into archived_events select e.* from events e where e.stream = archived.name;
    delete from events e where e.stream = archived.name;
    get diagnostics moved = row_count;
    delete from snapshots s where s.stream = archived.name;
    update streams s set archived_at = coalesce(s.archived_at, clock_timestamp()) where s.name = archived.name;
    return moved;
end
$$;

-- Moves the events of an archived stream back, under their positions; their number. Readers of the
-- log that have passed these positions do not get them again.
create function annals.stream_restore(stream text, reason text) returns bigint
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
declare
    restored constant streams := stream_administer(stream_restore.stream, stream_restore.reason);
    moved bigint;
begin
    insert into events select e.* from archived_events e where e.stream = restored.name;
    get diagnostics moved = row_count;
    delete from removed_events r using archived_events e where e.stream = restored.name and r.position = e.position;
    delete from archived_events e where e.stream = restored.name;
    update streams s set archived_at = null where s.name = restored.name;
    return moved;
end
$$;
