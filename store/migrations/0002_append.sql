-- Appending: the functions through which all events are written.

-- Whether metadata can be read and published: an object in which each known key is a text or null,
-- and the ids are UUIDs. Other keys belong to the producer. Without settings, so that the planner
-- inlines it.
create function annals.is_metadata(metadata jsonb) returns boolean
language sql immutable parallel safe
as $$
    select jsonb_typeof(metadata) = 'object' and not jsonb_path_exists(metadata, 'strict $ ? (
        exists(@.actor ? (@.type() != "string" && @.type() != "null"))
        || exists(@.traceparent ? (@.type() != "string" && @.type() != "null"))
        || exists(@.tracestate ? (@.type() != "string" && @.type() != "null"))
        || exists(@.correlation_id ? (@.type() != "null"
            && (@.type() != "string" || !(@ like_regex "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))))
        || exists(@.causation_id ? (@.type() != "null"
            && (@.type() != "string" || !(@ like_regex "^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"))))
    )')
$$;

-- Whether headers can be published: an object of text to text.
create function annals.are_headers(headers jsonb) returns boolean
language sql immutable parallel safe
as $$
    select jsonb_typeof(headers) = 'object' and not jsonb_path_exists(headers, 'strict $.* ? (@.type() != "string")')
$$;

-- Appends events to one or several streams, all or nothing, under version checks.
--
-- `streams` and `expected` have an element for each stream; the other arrays have an element for
-- each event. A stream without events is only checked.
--
--   streams             names, without duplicates
--   expected            version v >= 0, or -1 no stream, -2 any version, -3 existing stream
--   stream_of           for each event, the 1-based index of its stream in `streams`
--   conflict_events_max maximum number of events since the expected version in a conflict
--
-- Returns one row. `outcome` is
--
--   'appended'  written: versions and positions of the events, in the order of the arguments
--   'repeated'  an earlier call recorded the same events: their original versions and positions.
--               Stream, event type, schema and payload are compared. Metadata and headers describe
--               a request and may differ in a retry; those of the first attempt stay
--   'refused'   nothing is written; `refusals` has all reasons, as objects with a `kind`:
--
--     conflict        stream, expected, actual (null: no such stream), events
--     id_taken        event_id, stream, and `differs`: the fields that differ
--     partly_known    event_ids that are recorded while others of this append are not
--     illegal_stream  stream
--     unknown_schema  category, fingerprint: not registered for the category
--     malformed       event_id, and `field`: its metadata or headers cannot be published
--     other_cluster   recorded, found: the store came from another cluster and is not adopted
--
-- The transaction stays usable.
create function annals.append(
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
    conflict_events_max int default 0,
    out outcome text,
    out versions bigint[],
    out positions bigint[],
    out recorded_at timestamptz,
    out refusals jsonb
)
language plpgsql
-- EXECUTE on this function is the only privilege that an appender needs.
security definer
set search_path = annals, pg_temp
-- All statements access single rows by key. Planning them for each call would cost more than their
-- execution, and a plan made for empty tables must not scan them after they have grown.
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
as $$
#variable_conflict use_variable
declare
    counts bigint[];
    current bigint[];
    shards smallint[];
    created text[];
    place int;
    reached bigint;
    known int;
    unpublishable int;
    refused boolean := false;
    cluster text;
begin
    -- The reply means that the events are durable under any settings of the role or the
    -- database.
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;

    cluster := annals.system_identifier();

    -- One event, the usual case, in the fewest statements and expressions: each one is prepared
    -- again in each transaction, which costs more than its execution. If a check fails, nothing is
    -- written, and the general path below finds the reason.
    if cardinality(event_ids) = 1 and cardinality(streams) = 1 and current_setting('transaction_isolation') = 'read committed' then
        select s.version_min into reached from annals.streams s where s.name = streams[1] and s.closed_at is null for update;
        if not found and expected[1] in (-1, -2) and annals.is_stream_name(streams[1]) then
            insert into annals.streams (name, category, version_min) values (streams[1], split_part(streams[1], '-', 1), 0)
            on conflict (name) do nothing
            returning -1 into reached;
        end if;
        if found then
            -- After the lock, as below.
            recorded_at := clock_timestamp();
            with last as materialized (
                select greatest(reached, (
                    select e.version from annals.events e where e.stream = streams[1] order by e.version desc limit 1
                )) as version
            ),
            written as (
                insert into annals.events (
                    position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers
                )
                select
                    nextval('annals.positions'), streams[1], l.version + 1, event_ids[1], s.category, event_types[1], s.fingerprint,
                    recorded_at, payloads[1], data[1], metadata[1], headers[1]
                from last l, annals.schemas s, annals.identity i
                where (expected[1] in (-2, -3) or l.version = expected[1])
                    and s.fingerprint = fingerprints[1] and s.category = split_part(streams[1], '-', 1)
                    and i.is_only and i.system_identifier = cluster
                    and annals.is_metadata(metadata[1]) and annals.are_headers(headers[1])
                    and not exists (select from annals.events e where e.event_id = event_ids[1])
                returning events.position, events.version
            ),
            queued as (
                insert into annals.outbox (position, shard) select w.position, annals.shard_of(streams[1]) from written w
            )
            select array[w.version], array[w.position] into versions, positions from written w;
            if found then
                outcome := 'appended';
                return;
            end if;
            recorded_at := null;
            if reached = -1 then
                delete from annals.streams s where s.name = streams[1];
            end if;
        end if;
    end if;

    refusals := annals.append_other_cluster(cluster);
    if refusals is not null then
        outcome := 'refused';
        return;
    end if;

    counts := array_fill(0::bigint, array[cardinality(streams)]);
    for i in 1 .. cardinality(event_ids) loop
        counts[stream_of[i]] := counts[stream_of[i]] + 1;
    end loop;

    -- Lock the streams in the order of their names, so that two appends cannot deadlock. In one
    -- statement if all streams exist.
    if cardinality(streams) = (select count(*) from annals.streams s where s.name = any (streams)) then
        for place, reached in
            select n.place, s.version_min
            from unnest(streams) with ordinality n (name, place) join annals.streams s on s.name = n.name
            order by s.name
            for update of s
        loop
            current[place] := reached;
        end loop;
    end if;
    -- A stream that does not exist is created: its row is the lock that keeps others from creating
    -- it.
    for place in
        select n.place from unnest(streams) with ordinality n (name, place)
        where current[n.place] is null
        order by n.name collate "C"
    loop
        select s.version_min into reached from annals.streams s where s.name = streams[place] for update;
        while not found loop
            -- Checked when a stream is created; later appends find its row.
            if not annals.is_stream_name(streams[place]) then
                refused := true;
                reached := -1;
                exit;
            end if;
            insert into annals.streams (name, category, version_min)
            values (streams[place], split_part(streams[place], '-', 1), counts[place] - 1)
            on conflict (name) do nothing;
            if found then
                created := created || streams[place];
                reached := -1;
                exit;
            end if;
            -- Another transaction created it and has committed.
            select s.version_min into reached from annals.streams s where s.name = streams[place] for update;
        end loop;
        current[place] := reached;
    end loop;
    current := annals.append_versions(streams, current);
    for i in 1 .. cardinality(streams) loop
        refused := refused or not case expected[i]
            when -2 then true
            when -3 then current[i] >= 0
            else current[i] = expected[i]
        end;
    end loop;

    -- After the locks: a concurrent append of the same events has either committed or rolled back.
    select
        (select count(*) from annals.events e where e.event_id = any (event_ids))
        + (select count(*) from annals.removed_events r where r.event_id = any (event_ids)),
        (select count(*)
         from (select distinct streams[f.place] as stream, f.fingerprint from unnest(stream_of, fingerprints) f (place, fingerprint)) f
         where not exists (
            select from annals.schemas s where s.fingerprint = f.fingerprint and s.category = split_part(f.stream, '-', 1)
         ))
        + (select count(*) from unnest(metadata, headers) m (metadata, headers)
           where (annals.is_metadata(m.metadata) and annals.are_headers(m.headers)) is not true)
        + (select count(*) from unnest(streams, counts) c (name, events) join annals.streams s on s.name = c.name
           where s.closed_at is not null and c.events > 0)
    into known, unpublishable;
    if known > 0 then
        select k.outcome, k.versions, k.positions, k.recorded_at, k.refusals
        into outcome, versions, positions, recorded_at, refusals
        from annals.append_known(streams, stream_of, event_ids, event_types, fingerprints, payloads) k;
    elsif refused or unpublishable > 0 then
        outcome := 'refused';
        refusals := annals.append_conflicts(streams, expected, current, conflict_events_max)
            || annals.append_closed(streams, counts)
            || annals.append_unpublishable(streams, stream_of, event_ids, fingerprints, metadata, headers);
    end if;
    if outcome is not null then
        delete from annals.streams s where s.name = any (created);
        return;
    end if;

    -- Versions follow the order of the events. Positions are drawn after the locks, in the same
    -- order.
    positions := array(select nextval('annals.positions') from generate_series(1, cardinality(event_ids)));
    for i in 1 .. cardinality(event_ids) loop
        place := stream_of[i];
        current[place] := current[place] + 1;
        versions[i] := current[place];
    end loop;
    for i in 1 .. cardinality(streams) loop
        shards[i] := annals.shard_of(streams[i]);
    end loop;
    recorded_at := clock_timestamp();
    with queued as (
        insert into annals.outbox (position, shard)
        select o.position, shards[o.place] from unnest(positions, stream_of) as o (position, place)
    )
    insert into annals.events (
        position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers
    )
    select
        e.position, streams[e.place], e.version, e.event_id, split_part(streams[e.place], '-', 1), e.event_type, e.fingerprint,
        recorded_at, e.payload, e.data, e.metadata, e.headers
    from unnest(positions, stream_of, versions, event_ids, event_types, fingerprints, payloads, data, metadata, headers)
        as e (position, place, version, event_id, event_type, fingerprint, payload, data, metadata, headers);

    -- A stream that was only checked is not created.
    if created is not null and 0 = any (counts) then
        delete from annals.streams s where s.name = any (created) and s.version_min = -1;
    end if;
    outcome := 'appended';
end
$$;

-- The versions of locked streams, for their values of `version_min`: null for a stream that is not
-- locked, -1 for one without events. Volatile: each call has a snapshot of its own, after the
-- locks.
--
-- Above READ COMMITTED, the snapshot of the transaction is older than the locks. A stream with
-- later events is an error then, as if its row had been updated: an insert of the next version,
-- which is undone, meets them.
create function annals.append_versions(streams text[], reached bigint[]) returns bigint[]
language plpgsql
set search_path = annals, pg_temp
as $$
#variable_conflict use_variable
declare
    versions bigint[];
begin
    versions := array(
        select case when r.version_min is not null then greatest(r.version_min, (
            select e.version from annals.events e where e.stream = r.name order by e.version desc limit 1
        )) end
        from unnest(streams, reached) with ordinality r (name, version_min, place)
        order by r.place
    );
    if current_setting('transaction_isolation') in ('read committed', 'read uncommitted') then
        return versions;
    end if;
    for i in 1 .. cardinality(streams) loop
        continue when versions[i] is null or versions[i] < 0;
        begin
            insert into annals.events (
                position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers
            ) values (
                nextval('annals.positions'), streams[i], versions[i] + 1, gen_random_uuid(), split_part(streams[i], '-', 1), '', 0,
                now(), '', '{}', '{}', '{}'
            );
            raise exception using errcode = 'no_data_found';
        exception
            when no_data_found then
                null;
            when unique_violation then
                raise exception 'could not serialize access to stream %: it has events that are later than the snapshot', streams[i]
                    using errcode = 'serialization_failure';
        end;
    end loop;
    return versions;
end
$$;

-- The refusal in a cluster that the store does not belong to, as a JSON array; null in its own
-- cluster. Transaction ids have no meaning in another cluster, and readers depend on them.
create function annals.append_other_cluster(cluster text) returns jsonb
language sql stable
set search_path = annals, pg_temp
as $$
    select jsonb_build_array(jsonb_build_object('kind', 'other_cluster', 'recorded', i.system_identifier, 'found', cluster))
    from annals.identity i where i.is_only and i.system_identifier <> cluster
$$;

-- Makes independent appends to single streams in one transaction, each with its own outcome: the
-- outcomes of the same appends one after the other, in their order.
--
-- `streams` has an element for each stream, in the order of their names in C collation;
-- `append_streams`, `expected` and `conflict_events_max` for each append; the other arrays for each
-- event. The events of an append are adjacent, in the order of the appends. No event id occurs
-- twice.
--
--   append_streams  for each append, the 1-based index of its stream in `streams`
--   append_of       for each event, the 1-based index of its append
--
-- Returns one row. `outcomes`, `recorded_at` and `refusals` (a JSON array) have an element for each
-- append, as `append` returns them; `versions` and `positions` an element for each event. An
-- outcome can also be
--
--   'skipped'  nothing is written, because another transaction has locked the stream or is creating
--              it, it is closed, or its name is illegal: use `append`, which waits
create function annals.append_each(
    streams text[],
    append_streams int[],
    expected bigint[],
    append_of int[],
    event_ids uuid[],
    event_types text[],
    fingerprints bigint[],
    payloads bytea[],
    data jsonb[],
    metadata jsonb[],
    headers jsonb[],
    conflict_events_max int[],
    out outcomes text[],
    out versions bigint[],
    out positions bigint[],
    out recorded_at timestamptz[],
    out refusals jsonb
)
language plpgsql
security definer
set search_path = annals, pg_temp
set plan_cache_mode = force_generic_plan
set enable_seqscan = off
-- The insert of an event id waits for another transaction that has inserted it in another stream.
-- Then the call fails, and its appends go alone.
set lock_timeout = '250ms'
as $$
#variable_conflict use_variable
declare
    appends constant int := cardinality(append_streams);
    cluster text;
    now timestamptz;
    first int[] := array_fill(null::int, array[appends]);
    counts int[] := array_fill(0, array[appends]);
    -- For each stream: the version before the next append, null where it is skipped.
    current bigint[];
    created bigint[];
    known int[];
    unpublishable int[];
    -- For each append that is written: the version and the number of written events before it.
    base bigint[] := array_fill(null::bigint, array[appends]);
    offsets int[] := array_fill(null::int, array[appends]);
    written int := 0;
    drawn bigint[];
    stream int;
    recorded record;
    refusal jsonb;
begin
    -- The reply means that the events are durable under any settings of the role or the
    -- database.
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;
    cluster := annals.system_identifier();
    outcomes := array_fill('refused'::text, array[appends]);
    recorded_at := array_fill(null::timestamptz, array[appends]);
    -- The usual call, one event for each of several existing streams and nothing to refuse, in two
    -- statements. If a check fails, nothing is written, and the general path below finds the
    -- reason.
    if cardinality(streams) = appends and cardinality(event_ids) = appends
        and current_setting('transaction_isolation') = 'read committed'
    then
        current := array(
            select l.version_min
            from unnest(streams) with ordinality n (name, place)
            cross join lateral (
                select s.version_min from annals.streams s where s.name = n.name and s.closed_at is null for update skip locked
            ) l
            order by n.place
        );
        if cardinality(current) = appends then
            now := clock_timestamp();
            -- After the locks, as below. Each subquery has a value, and so is evaluated for each
            -- event: for an `exists`, the planner can hash a whole table.
            with given as materialized (
                select n.*, streams[n.place] as stream, greatest(current[n.place], (
                    select e.version from annals.events e where e.stream = streams[n.place] order by e.version desc limit 1
                )) as last
                from unnest(
                    append_streams, expected, event_ids, event_types, fingerprints, payloads, data, metadata, headers
                ) with ordinality
                    as n (place, expected, event_id, event_type, fingerprint, payload, data, metadata, headers, number)
            ),
            checked as (
                select from annals.identity i
                where i.is_only and i.system_identifier = cluster and not exists (
                    select from given g
                    where (g.expected in (-2, -3) or g.expected = g.last) is not true
                        or (select true from annals.events e where e.event_id = g.event_id)
                        or (
                            select true from annals.schemas s
                            where s.fingerprint = g.fingerprint and s.category = split_part(g.stream, '-', 1)
                        ) is null
                        or (annals.is_metadata(g.metadata) and annals.are_headers(g.headers)) is not true
                )
            ),
            written as materialized (
                select nextval('annals.positions') as position, g.* from checked cross join given g
            ),
            queued as (
                insert into annals.outbox (position, shard) select w.position, annals.shard_of(w.stream) from written w
            ),
            recorded as (
                insert into annals.events (
                    position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers
                )
                select
                    w.position, w.stream, w.last + 1, w.event_id, split_part(w.stream, '-', 1), w.event_type, w.fingerprint, now,
                    w.payload, w.data, w.metadata, w.headers
                from written w
            )
            select array_agg(w.last + 1 order by w.number), array_agg(w.position order by w.number)
            into versions, positions from written w;
            if versions is not null then
                outcomes := array_fill('appended'::text, array[appends]);
                recorded_at := array_fill(now, array[appends]);
                return;
            end if;
        end if;
    end if;

    refusal := annals.append_other_cluster(cluster);
    if refusal is not null then
        refusals := (select jsonb_agg(refusal) from generate_series(1, appends));
        return;
    end if;

    for i in 1 .. cardinality(append_of) loop
        counts[append_of[i]] := counts[append_of[i]] + 1;
        if counts[append_of[i]] = 1 then
            first[append_of[i]] := i;
        end if;
    end loop;

    -- Lock the streams without waiting.
    with locked as (
        select n.place, l.version_min
        from unnest(streams) with ordinality n (name, place)
        cross join lateral (
            select s.version_min from annals.streams s where s.name = n.name and s.closed_at is null for update skip locked
        ) l
    )
    select array_agg(l.version_min order by n.place) into current
    from unnest(streams) with ordinality n (name, place) left join locked l on l.place = n.place;
    if array_position(current, null) is not null then
        created := annals.append_create_streams(streams, current);
        for i in 1 .. coalesce(cardinality(created), 0) loop
            if created[i] is not null then
                current[i] := -1;
            end if;
        end loop;
    end if;
    current := annals.append_versions(streams, current);

    -- After the locks: a concurrent append of the same events has either committed or rolled back.
    known := array(
        select distinct e.append
        from unnest(append_of, event_ids) e (append, event_id)
        where exists (select from annals.events r where r.event_id = e.event_id)
            or exists (select from annals.removed_events r where r.event_id = e.event_id)
    );
    unpublishable := array(
        select f.append
        from (
            select distinct e.append, e.fingerprint, split_part(streams[append_streams[e.append]], '-', 1) as category
            from unnest(append_of, fingerprints) e (append, fingerprint)
        ) f
        where not exists (select from annals.schemas s where s.fingerprint = f.fingerprint and s.category = f.category)
        union
        select e.append
        from unnest(append_of, metadata, headers) e (append, metadata, headers)
        where (annals.is_metadata(e.metadata) and annals.are_headers(e.headers)) is not true
    );

    for i in 1 .. appends loop
        stream := append_streams[i];
        if current[stream] is null then
            outcomes[i] := 'skipped';
        elsif not i = any (known) and not i = any (unpublishable) and (
            expected[i] = -2 or expected[i] = current[stream] or expected[i] = -3 and current[stream] >= 0
        ) then
            outcomes[i] := 'appended';
            base[i] := current[stream];
            offsets[i] := written;
            current[stream] := current[stream] + counts[i];
            written := written + counts[i];
        elsif not i = any (known) then
            -- The version that the append met; the events since then are collected below.
            base[i] := -2 - current[stream];
        end if;
    end loop;

    -- Positions are drawn after the locks, in the order of the events.
    drawn := array(select nextval('annals.positions') from generate_series(1, written));
    now := clock_timestamp();
    select
        array_agg(case when outcomes[e.append] = 'appended' then base[e.append] + 1 + e.place - first[e.append] end order by e.place),
        array_agg(
            case when outcomes[e.append] = 'appended' then drawn[offsets[e.append] + 1 + e.place - first[e.append]] end
            order by e.place
        )
    into versions, positions
    from unnest(append_of) with ordinality e (append, place);

    with queued as (
        insert into annals.outbox (position, shard)
        select o.position, annals.shard_of(streams[append_streams[o.append]])
        from unnest(positions, append_of) as o (position, append)
        where o.position is not null
    )
    insert into annals.events (
        position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers
    )
    select
        e.position, streams[append_streams[e.append]], e.version, e.event_id,
        split_part(streams[append_streams[e.append]], '-', 1), e.event_type, e.fingerprint, now, e.payload, e.data, e.metadata,
        e.headers
    from unnest(positions, append_of, versions, event_ids, event_types, fingerprints, payloads, data, metadata, headers)
        as e (position, append, version, event_id, event_type, fingerprint, payload, data, metadata, headers)
    where e.position is not null;
    -- A stream that was created for refused appends only does not stay.
    if created is not null and -1 = any (current) then
        delete from annals.streams s
        using unnest(streams, current, created) as n (name, version, created)
        where s.name = n.name and n.version = -1 and n.created is not null;
    end if;

    for i in 1 .. appends loop
        if outcomes[i] = 'appended' then
            recorded_at[i] := now;
        elsif outcomes[i] = 'refused' then
            refusals := coalesce(refusals, (select jsonb_agg(null::int) from generate_series(1, appends)));
            if i = any (known) then
                select k.* into recorded
                from annals.append_known(
                    array[streams[append_streams[i]]], array_fill(1, array[counts[i]]),
                    event_ids[first[i] : first[i] + counts[i] - 1], event_types[first[i] : first[i] + counts[i] - 1],
                    fingerprints[first[i] : first[i] + counts[i] - 1], payloads[first[i] : first[i] + counts[i] - 1]
                ) k;
                outcomes[i] := recorded.outcome;
                recorded_at[i] := recorded.recorded_at;
                refusal := recorded.refusals;
                for e in 1 .. coalesce(cardinality(recorded.versions), 0) loop
                    versions[first[i] + e - 1] := recorded.versions[e];
                    positions[first[i] + e - 1] := recorded.positions[e];
                end loop;
            else
                refusal := annals.append_conflicts(
                    array[streams[append_streams[i]]], array[expected[i]], array[-2 - base[i]], conflict_events_max[i]
                ) || annals.append_unpublishable(
                    array[streams[append_streams[i]]], array_fill(1, array[counts[i]]),
                    event_ids[first[i] : first[i] + counts[i] - 1], fingerprints[first[i] : first[i] + counts[i] - 1],
                    metadata[first[i] : first[i] + counts[i] - 1], headers[first[i] : first[i] + counts[i] - 1]
                );
            end if;
            refusals := jsonb_set(refusals, array[(i - 1)::text], coalesce(refusal, 'null'));
        end if;
    end loop;
end
$$;

-- Creates the streams that have no version in `current` and do not exist. Returns a number for each
-- created row, null for other streams; null if another transaction is creating one of the streams:
-- an insert waits for it, for at most 1 ms.
create function annals.append_create_streams(streams text[], current bigint[])
returns bigint[]
language plpgsql
set search_path = annals, pg_temp
as $$
#variable_conflict use_variable
declare
    lock_timeout constant text := current_setting('lock_timeout');
    created bigint[];
begin
    perform set_config('lock_timeout', '1ms', true);
    with inserted as (
        insert into annals.streams (name, category, version_min)
        select n.name, split_part(n.name, '-', 1), 0
        from unnest(streams) with ordinality n (name, place)
        where current[n.place] is null and annals.is_stream_name(n.name)
            and not exists (select from annals.streams s where s.name = n.name)
        order by n.place
        on conflict (name) do nothing
        returning name, version_min
    )
    select array_agg(i.version_min order by n.place) into created
    from unnest(streams) with ordinality n (name, place) left join inserted i on i.name = n.name;
    perform set_config('lock_timeout', lock_timeout, true);
    return created;
exception
    when lock_not_available then
        return null;
end
$$;

-- The result of an append of which at least one event is recorded: the original result if all
-- events are recorded with the same content, and otherwise a refusal with the differences. An event
-- that an administrator removed counts as recorded, with the time of its removal, and its content
-- is not compared: a late repetition does not record it again.
create function annals.append_known(
    streams text[],
    stream_of int[],
    event_ids uuid[],
    event_types text[],
    fingerprints bigint[],
    payloads bytea[],
    out outcome text,
    out versions bigint[],
    out positions bigint[],
    out recorded_at timestamptz,
    out refusals jsonb
)
language plpgsql
set search_path = annals, pg_temp
as $$
#variable_conflict use_variable
begin
    with given as (
        select streams[g.stream_of] as stream, g.*
        from unnest(stream_of, event_ids, event_types, fingerprints, payloads) with ordinality
            as g (stream_of, event_id, event_type, fingerprint, payload, place)
    ),
    compared as (
        select
            g.place, g.event_id, e.position, e.version, e.stream, e.recorded_at,
            array_remove(array[
                case when e.stream <> g.stream then 'stream' end,
                case when e.event_type <> g.event_type then 'event_type' end,
                case when e.fingerprint <> g.fingerprint then 'schema' end,
                case when e.payload <> g.payload then 'payload' end
            ], null) as differs
        from given g
        cross join lateral (
            select e.position, e.version, e.stream, e.recorded_at, e.event_type, e.fingerprint, e.payload
            from annals.events e where e.event_id = g.event_id
            union all
            select r.position, r.version, r.stream, r.removed_at, r.event_type, null, null
            from annals.removed_events r
            where r.event_id = g.event_id and not exists (select from annals.events e where e.event_id = r.event_id)
        ) e
    ),
    refused as (
        select jsonb_build_object(
            'kind', 'id_taken', 'event_id', c.event_id, 'stream', c.stream, 'differs', to_jsonb(c.differs)
        ) as refusal
        from compared c where cardinality(c.differs) > 0
        union all
        select jsonb_build_object('kind', 'partly_known', 'event_ids', jsonb_agg(c.event_id order by c.place))
        from compared c having count(*) < cardinality(event_ids)
    )
    select
        case when exists (select from refused) then 'refused' else 'repeated' end,
        case when not exists (select from refused) then (select array_agg(c.version order by c.place) from compared c) end,
        case when not exists (select from refused) then (select array_agg(c.position order by c.place) from compared c) end,
        case when not exists (select from refused) then (select min(c.recorded_at) from compared c) end,
        (select jsonb_agg(r.refusal) from refused r)
    into outcome, versions, positions, recorded_at, refusals;
end
$$;

-- The events of a stream after a version, up to another one, at most `events_max` of them and
-- `bytes_max` of their payloads, as a JSON array in version order.
create function annals.events_since(stream text, version bigint, until bigint, events_max int, bytes_max bigint)
returns jsonb
language sql stable
set search_path = annals, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'position', e.position, 'stream', e.stream, 'version', e.version, 'event_id', e.event_id,
        'event_type', e.event_type, 'fingerprint', e.fingerprint, 'recorded_at', e.recorded_at,
        'payload', encode(e.payload, 'hex'), 'metadata', e.metadata, 'headers', e.headers
    ) order by e.version), '[]')
    from (
        -- The length of a large payload is known without reading it. Each event counts for 1,000
        -- bytes more, for its metadata.
        select e.*, sum(octet_length(e.payload) + 1000) over (order by e.version) as bytes
        from annals.events e
        where e.stream = events_since.stream and e.version > events_since.version and e.version <= events_since.until
        order by e.version
        limit events_max
    ) e
    where e.bytes <= bytes_max
$$;

-- The conflicts of streams at versions `current` (-1: no such stream), as a JSON array. All of them
-- together have at most 8 MB of payloads: one JSON value is limited to 256 MB, and hexadecimal
-- digits and metadata are several times as large.
create function annals.append_conflicts(streams text[], expected bigint[], current bigint[], conflict_events_max int)
returns jsonb
language sql stable
set search_path = annals, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'kind', 'conflict', 'stream', c.stream, 'expected', c.expected, 'actual', nullif(c.actual, -1),
        'events', annals.events_since(
            c.stream, greatest(c.expected, -1), c.actual, conflict_events_max, 8000000 / c.conflicts
        )
    )), '[]')
    from (
        select c.*, count(*) over () as conflicts
        from unnest(streams, expected, current) as c (stream, expected, actual)
        where not case c.expected when -2 then true when -3 then c.actual >= 0 else c.actual = c.expected end
    ) c
$$;

-- The reasons why an append cannot be published, as a JSON array.
create function annals.append_unpublishable(
    streams text[], stream_of int[], event_ids uuid[], fingerprints bigint[], metadata jsonb[], headers jsonb[]
) returns jsonb
language sql stable
set search_path = annals, pg_temp
as $$
    select coalesce(jsonb_agg(r.refusal), '[]') from (
        select jsonb_build_object('kind', 'illegal_stream', 'stream', i.stream) as refusal
        from unnest(streams) as i (stream) where not annals.is_stream_name(i.stream)
        union all
        select distinct jsonb_build_object('kind', 'unknown_schema', 'category', f.category, 'fingerprint', f.fingerprint)
        from (
            select split_part(streams[g.place], '-', 1) as category, g.fingerprint
            from unnest(stream_of, fingerprints) as g (place, fingerprint)
        ) f
        where not exists (select from annals.schemas s where s.fingerprint = f.fingerprint and s.category = f.category)
        union all
        select jsonb_build_object('kind', 'malformed', 'event_id', m.event_id, 'field', p.field)
        from unnest(event_ids, metadata, headers) as m (event_id, metadata, headers)
        cross join lateral (
            values ('metadata', annals.is_metadata(m.metadata)), ('headers', annals.are_headers(m.headers))
        ) as p (field, is_fit)
        where p.is_fit is not true
    ) r
$$;

-- Appends in a transaction that consists of this call, and commits it; arguments and result as of
-- `append`. Inside a transaction block the server refuses the commit (SQLSTATE 2D000) and nothing
-- is written: so a reply proves that the events are committed, in any state of the connection.
-- Without a search_path, because a procedure with settings may not commit. The append runs at READ
-- COMMITTED under any default of the role or database: above it, an append that waits for the lock
-- of a stream would fail instead of seeing the stream's new version.
create procedure annals.append_and_commit(
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
    from annals.append(
        streams, expected, stream_of, event_ids, event_types, fingerprints, payloads, data, metadata, headers,
        conflict_events_max
    ) a;
    commit;
end
$$;

-- Calls `append_each` in a transaction that consists of this call, and commits it, as
-- `append_and_commit` does.
create procedure annals.append_each_and_commit(
    streams text[],
    append_streams int[],
    expected bigint[],
    append_of int[],
    event_ids uuid[],
    event_types text[],
    fingerprints bigint[],
    payloads bytea[],
    data jsonb[],
    metadata jsonb[],
    headers jsonb[],
    conflict_events_max int[],
    inout outcomes text[],
    inout versions bigint[],
    inout positions bigint[],
    inout recorded_at timestamptz[],
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
    select a.outcomes, a.versions, a.positions, a.recorded_at, a.refusals
    into outcomes, versions, positions, recorded_at, refusals
    from annals.append_each(
        streams, append_streams, expected, append_of, event_ids, event_types, fingerprints, payloads, data, metadata, headers,
        conflict_events_max
    ) a;
    commit;
end
$$;
