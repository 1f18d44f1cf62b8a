-- Appending: the one way in which events are written.

-- Whether these are metadata that can be read and published: an object, of whose known keys each is a text or null, and the
-- ids UUIDs. Other keys are the producer's own. No settings, so that it becomes a part of the statements that use it.
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

-- Whether these are headers that can be published: an object of text to text.
create function annals.are_headers(headers jsonb) returns boolean
language sql immutable parallel safe
as $$
    select jsonb_typeof(headers) = 'object' and not jsonb_path_exists(headers, 'strict $.* ? (@.type() != "string")')
$$;

-- Appends events to one or several streams, or says why not; all or nothing, under the version checks.
--
-- Everything about one stream stands at the same place of `streams` and `expected`; everything about
-- one event at the same place of the other arrays. A stream without events is checked only.
--
--   streams             names, each once
--   expected            version v >= 0, or -1 no stream, -2 any, -3 stream exists
--   stream_of           for each event the 1-based place of its stream in `streams`
--   conflict_events_max how many of the events since the expected version a conflict carries
--
-- Returns one row. `outcome` is
--   'appended'  written: versions and positions of the events, in the order given
--   'repeated'  these very events were there already: their original versions and positions. What is compared is what
--               was decided: stream, event type, schema and payload. Metadata and headers say how a request went, and
--               those of a retry may differ: what the first try recorded stays
--   'refused'   nothing is written; `refusals` has every reason, as objects with a `kind`:
--                 conflict       stream, expected, actual (null: no such stream), events
--                 id_taken       event_id, stream, and `differs`: what was decided otherwise than is recorded
--                 partly_known   event_ids that are recorded while others of this append are not
--                 illegal_stream stream
--                 unknown_schema category, fingerprint: not registered for the category
--                 malformed      event_id, and `place`: its metadata or headers could not be published
--                 other_cluster  recorded, found: the store came here from another cluster and is not adopted
--               and the transaction stays usable.
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
-- Who may call it may append; nobody needs a right on the tables.
security definer
set search_path = annals, pg_temp
-- The statements below touch single rows by key. Planning them anew for each call would cost more than
-- running them, and a plan made while the tables were empty must not scan them once they have grown.
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
    held bigint;
    known int;
    unpublishable int;
    refused boolean := false;
    cluster text;
begin
    -- The reply must mean that the events are durable, whatever a role or a database has set.
    if current_setting('synchronous_commit') not in ('on', 'remote_apply') then
        perform set_config('synchronous_commit', 'on', true);
    end if;

    cluster := annals.system_identifier();

    -- One event, the usual case: in the fewest statements and expressions, since each is made ready anew in every
    -- transaction, which costs more than what it does. Whatever is not as it should be leaves the stream as it was, for
    -- the general way below to say what.
    if cardinality(event_ids) = 1 and cardinality(streams) = 1 then
        update annals.streams s set version = s.version + 1
        where s.name = streams[1] and (expected[1] in (-2, -3) or s.version = expected[1])
        returning s.version into held;
        if not found and expected[1] in (-1, -2) and annals.is_stream_name(streams[1]) then
            insert into annals.streams (name, category, version) values (streams[1], split_part(streams[1], '-', 1), 0)
            on conflict (name) do nothing
            returning version into held;
        end if;
        if found then
            -- Only after the lock, as below.
            select count(*) into known from annals.schemas s, annals.identity i
            where s.fingerprint = fingerprints[1] and s.category = split_part(streams[1], '-', 1)
                and i.is_only and i.system_identifier = cluster
                and annals.is_metadata(metadata[1]) and annals.are_headers(headers[1])
                and not exists (select from annals.events e where e.event_id = event_ids[1]);
            if known = 1 then
                versions := array[held];
                positions := array[nextval('annals.positions')];
                recorded_at := clock_timestamp();
                with queued as (
                    insert into annals.outbox (position, shard) values (positions[1], annals.shard_of(streams[1]))
                )
                insert into annals.events (
                    position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers
                ) values (
                    positions[1], streams[1], held, event_ids[1], split_part(streams[1], '-', 1), event_types[1],
                    fingerprints[1], recorded_at, payloads[1], data[1], metadata[1], headers[1]
                );
                outcome := 'appended';
                return;
            end if;
            -- At 0 it was made just now: one that was there is beyond.
            if held = 0 then
                delete from annals.streams s where s.name = streams[1];
            else
                update annals.streams s set version = held - 1 where s.name = streams[1];
            end if;
        end if;
    end if;

    -- Transaction ids mean nothing in another cluster, and readers go by them.
    select jsonb_build_array(jsonb_build_object('kind', 'other_cluster', 'recorded', i.system_identifier, 'found', cluster))
    into refusals
    from annals.identity i where i.is_only and i.system_identifier <> cluster;
    if refusals is not null then
        outcome := 'refused';
        return;
    end if;

    counts := array_fill(0::bigint, array[cardinality(streams)]);
    for i in 1 .. cardinality(event_ids) loop
        counts[stream_of[i]] := counts[stream_of[i]] + 1;
    end loop;

    -- Lock the streams, in one order for everybody, so that no two appends can deadlock. A stream that
    -- does not exist is created at once: its row is the lock that keeps others from creating it.
    for place in select s.place from unnest(streams) with ordinality s (name, place) order by s.name collate "C" loop
        select s.version into held from annals.streams s where s.name = streams[place] for update;
        while not found loop
            -- Checked where a stream begins to exist; all later appends find its row.
            if not annals.is_stream_name(streams[place]) then
                refused := true;
                held := -1;
                exit;
            end if;
            insert into annals.streams (name, category, version)
            values (streams[place], split_part(streams[place], '-', 1), counts[place] - 1)
            on conflict (name) do nothing;
            if found then
                created := created || streams[place];
                held := -1;
                exit;
            end if;
            -- Somebody else created it and has committed by now.
            select s.version into held from annals.streams s where s.name = streams[place] for update;
        end loop;
        current[place] := held;
        refused := refused or not case expected[place]
            when -2 then true
            when -3 then held >= 0
            else held = expected[place]
        end;
    end loop;

    -- Only after the locks: a concurrent append of the same events has then either committed or gone.
    select
        (select count(*) from annals.events e where e.event_id = any (event_ids)),
        (select count(*)
         from (select distinct streams[f.place] as stream, f.fingerprint from unnest(stream_of, fingerprints) f (place, fingerprint)) f
         where not exists (
            select from annals.schemas s where s.fingerprint = f.fingerprint and s.category = split_part(f.stream, '-', 1)
         ))
        + (select count(*) from unnest(metadata, headers) m (metadata, headers)
           where (annals.is_metadata(m.metadata) and annals.are_headers(m.headers)) is not true)
    into known, unpublishable;
    if known > 0 then
        select k.outcome, k.versions, k.positions, k.recorded_at, k.refusals
        into outcome, versions, positions, recorded_at, refusals
        from annals.append_known(streams, stream_of, event_ids, event_types, fingerprints, payloads) k;
    elsif refused or unpublishable > 0 then
        outcome := 'refused';
        refusals := annals.append_conflicts(streams, expected, current, conflict_events_max)
            || annals.append_unpublishable(streams, stream_of, event_ids, fingerprints, metadata, headers);
    end if;
    if outcome is not null then
        delete from annals.streams s where s.name = any (created);
        return;
    end if;

    -- Versions follow the order of the events; positions are drawn after the locks, in the same order.
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

    for i in 1 .. cardinality(streams) loop
        if counts[i] > 0 and current[i] >= counts[i] then
            update annals.streams s set version = current[i] where s.name = streams[i];
        end if;
    end loop;
    -- A stream that was only checked does not begin to exist.
    if created is not null and 0 = any (counts) then
        delete from annals.streams s where s.name = any (created) and s.version = -1;
    end if;
    outcome := 'appended';
end
$$;

-- The answer to an append of events of which at least one is recorded: the original answer when all
-- of them are, with the same content, and otherwise a refusal that says what differs.
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
language sql
set search_path = annals, pg_temp
as $$
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
        from given g join annals.events e on e.event_id = g.event_id
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
$$;

-- The events of a stream after a version, at most `events_max`, as a JSON array in version order.
create function annals.events_since(stream text, version bigint, events_max int) returns jsonb
language sql stable
set search_path = annals, pg_temp
as $$
    select coalesce(jsonb_agg(to_jsonb(e) order by e.version), '[]')
    from (
        select
            e.position, e.stream, e.version, e.event_id, e.event_type, e.fingerprint, e.recorded_at,
            encode(e.payload, 'hex') as payload, e.data, e.metadata, e.headers
        from annals.events e
        where e.stream = events_since.stream and e.version > events_since.version
        order by e.version
        limit events_max
    ) e
$$;

-- What is not as expected of streams whose versions are `current` (-1: no such stream), as a JSON array.
create function annals.append_conflicts(streams text[], expected bigint[], current bigint[], conflict_events_max int)
returns jsonb
language sql stable
set search_path = annals, pg_temp
as $$
    select coalesce(jsonb_agg(jsonb_build_object(
        'kind', 'conflict', 'stream', c.stream, 'expected', c.expected, 'actual', nullif(c.actual, -1),
        'events', annals.events_since(c.stream, greatest(c.expected, -1), conflict_events_max)
    )), '[]')
    from unnest(streams, expected, current) as c (stream, expected, actual)
    where not case c.expected when -2 then true when -3 then c.actual >= 0 else c.actual = c.expected end
$$;

-- Everything in an append that could not be published, as a JSON array.
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
        select jsonb_build_object('kind', 'malformed', 'event_id', m.event_id, 'place', p.place)
        from unnest(event_ids, metadata, headers) as m (event_id, metadata, headers)
        cross join lateral (
            values ('metadata', annals.is_metadata(m.metadata)), ('headers', annals.are_headers(m.headers))
        ) as p (place, is_fit)
        where p.is_fit is not true
    ) r
$$;

-- Appends in a transaction that is exactly this call, and commits it; the same arguments and answer as
-- `append`. Inside a transaction block the commit is refused by the server (SQLSTATE 2D000) and
-- nothing is written: so an answer from here proves that the events are committed, whatever state the
-- connection was in. No search_path is set, for a procedure with a setting may not commit.
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
    select a.outcome, a.versions, a.positions, a.recorded_at, a.refusals
    into outcome, versions, positions, recorded_at, refusals
    from annals.append(
        streams, expected, stream_of, event_ids, event_types, fingerprints, payloads, data, metadata, headers,
        conflict_events_max
    ) a;
    commit;
end
$$;
