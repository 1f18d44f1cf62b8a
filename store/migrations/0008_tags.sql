-- Tags of events, and appends whose condition is a query by tags.

-- The tags of events. Along a tag, positions follow the order of the commits: each append with the
-- tag holds the tag's lock from before it draws positions until it has committed.
create table annals.tags (
    tag text collate "C" not null,
    position bigint not null,
    event_type text collate "C" not null,
    constraint tags_pkey primary key (tag, position) include (event_type),
    constraint tags_tag check (octet_length(tag) between 1 and 200)
);
create index tags_position on annals.tags (position);
select annals.make_insert_only('annals.tags');
comment on table annals.tags is 'one row for each tag of each event; the tags of a removed event are removed with it';

-- Removes the tags of events that are neither in `events` nor in `archived_events` any more.
create function annals.keep_tags() returns trigger
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    delete from tags t using removed r
    where t.position = r.position
        and not exists (select from events e where e.position = r.position)
        and not exists (select from archived_events a where a.stream = r.stream and a.version = r.version);
    return null;
end
$$;
create trigger keep_tags after delete on annals.events
    referencing old table as removed for each statement execute function annals.keep_tags();
alter table annals.events enable always trigger keep_tags;
create trigger keep_tags after delete on annals.archived_events
    referencing old table as removed for each statement execute function annals.keep_tags();
alter table annals.archived_events enable always trigger keep_tags;

-- Locks tags until the end of the transaction, in the order of the numbers that stand for them, so
-- that two appends cannot deadlock. Two tags with the same number wait for each other.
create function annals.lock_tags(tags text[]) returns void
language plpgsql
set search_path = annals, pg_temp
as $$
begin
    perform pg_advisory_xact_lock(n.number)
    from (
        select distinct hashtextextended('annals.tag:' || current_schema() || ':' || t.tag, 0) as number
        from unnest(lock_tags.tags) t (tag) order by 1
    ) n;
end
$$;

-- The conditions that do not hold, as a JSON array: an event with the tag, of one of the types
-- (null: any), has a position above `after`. All of them together have at most 8 MB of payloads, as
-- conflicts.
create function annals.append_tag_conflicts(
    condition_tags text[], condition_after bigint[], condition_types jsonb[], conflict_events_max int
)
returns jsonb
language sql stable
set search_path = annals, pg_temp
-- For any limit, the planner estimates a tenth of a tag's events, and would compile the plan.
set jit = off
as $$
    with conditions as (
        select c.* from unnest(condition_tags, condition_after, condition_types) with ordinality c (tag, after, types, place)
    ),
    broken as (
        select c.*, count(*) over () as conflicts, l.position as last
        from conditions c
        cross join lateral (
            select t.position
            from tags t join events e on e.position = t.position
            where t.tag = c.tag and t.position > c.after and (c.types is null or c.types ? t.event_type)
            order by t.position desc
            limit 1
        ) l
    )
    select coalesce(jsonb_agg(jsonb_build_object(
        'kind', 'tag_conflict', 'tag', b.tag, 'after', b.after, 'last', b.last, 'events', (
            select coalesce(jsonb_agg(jsonb_build_object(
                'position', e.position, 'stream', e.stream, 'version', e.version, 'event_id', e.event_id,
                'event_type', e.event_type, 'fingerprint', e.fingerprint, 'recorded_at', e.recorded_at,
                'payload', encode(e.payload, 'hex'), 'metadata', e.metadata, 'headers', e.headers
            ) order by e.position), '[]')
            from (
                -- As in events_since.
                select e.*, sum(octet_length(e.payload) + 1000) over (order by e.position) as bytes
                from tags t join events e on e.position = t.position
                where t.tag = b.tag and t.position > b.after and (b.types is null or b.types ? t.event_type)
                order by e.position
                limit conflict_events_max
            ) e
            where e.bytes <= 8000000 / b.conflicts
        )
    ) order by b.place), '[]')
    from broken b
$$;

-- Appends events of which some have tags, under conditions on tags. Arguments and result as of
-- `append`, and
--
--   tag_of       for each tag of an event, the 1-based index of the event
--   tags         the tags
--   condition_tags, condition_after, condition_types
--                have an element for each condition: the append is refused if an event with the
--                tag, of one of the types (a JSON array; null: any), has a higher position
--
-- Further refusals, which come before those of `append`:
--
--   tag_conflict  tag, after, last (the highest position of such an event), events
--   isolation     found: the transaction is above READ COMMITTED, so that it does not see the
--                 events that were committed before the locks of the tags
create function annals.append_tagged(
    streams text[],
    expected bigint[],
    stream_of int[],
    event_ids uuid[],
    event_types text[],
    fingerprints bigint[],
    payloads bytea[],
    data jsonb[],
    metadata jsonb[],
    headers jsonb[],
    conflict_events_max int,
    tag_of int[],
    tags text[],
    condition_tags text[],
    condition_after bigint[],
    condition_types jsonb[],
    out outcome text,
    out versions bigint[],
    out positions bigint[],
    out recorded_at timestamptz,
    out refusals jsonb
)
language plpgsql
security definer
set search_path = annals, pg_temp
-- As for `append`.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_variable
begin
    if current_setting('transaction_isolation') not in ('read committed', 'read uncommitted') then
        outcome := 'refused';
        refusals := jsonb_build_array(jsonb_build_object('kind', 'isolation', 'found', current_setting('transaction_isolation')));
        return;
    end if;
    perform annals.lock_tags(tags || condition_tags);

    -- A repetition gets the original answer, although its own events break its conditions.
    if exists (
            select from unnest(condition_tags, condition_after, condition_types) c (tag, after, types)
            join annals.tags t on t.tag = c.tag and t.position > c.after
            where (c.types is null or c.types ? t.event_type)
                and exists (select from annals.events e where e.position = t.position)
        )
        and not exists (select from annals.events e where e.event_id = any (event_ids))
        and not exists (select from annals.removed_events r where r.event_id = any (event_ids))
    then
        outcome := 'refused';
        refusals := annals.append_tag_conflicts(condition_tags, condition_after, condition_types, conflict_events_max);
        return;
    end if;

    select a.outcome, a.versions, a.positions, a.recorded_at, a.refusals
    into outcome, versions, positions, recorded_at, refusals
    from annals.append(
        streams, expected, stream_of, event_ids, event_types, fingerprints, payloads, data, metadata, headers,
        conflict_events_max
    ) a;
    if outcome = 'appended' then
        insert into annals.tags (tag, position, event_type)
        select distinct t.tag, positions[t.tag_of], event_types[t.tag_of] from unnest(tag_of, tags) t (tag_of, tag);
    end if;
end
$$;

-- Calls `append_tagged` in a transaction that consists of this call, and commits it, as
-- `append_and_commit` does.
create procedure annals.append_tagged_and_commit(
    streams text[],
    expected bigint[],
    stream_of int[],
    event_ids uuid[],
    event_types text[],
    fingerprints bigint[],
    payloads bytea[],
    data jsonb[],
    metadata jsonb[],
    headers jsonb[],
    conflict_events_max int,
    tag_of int[],
    tags text[],
    condition_tags text[],
    condition_after bigint[],
    condition_types jsonb[],
    inout outcome text,
    inout versions bigint[],
    inout positions bigint[],
    inout recorded_at timestamptz,
    inout refusals jsonb
)
language plpgsql
as $$
#variable_conflict use_variable
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        commit;
        set transaction isolation level read committed;
    end if;
    select a.outcome, a.versions, a.positions, a.recorded_at, a.refusals
    into outcome, versions, positions, recorded_at, refusals
    from annals.append_tagged(
        streams, expected, stream_of, event_ids, event_types, fingerprints, payloads, data, metadata, headers,
        conflict_events_max, tag_of, tags, condition_tags, condition_after, condition_types
    ) a;
    commit;
end
$$;
