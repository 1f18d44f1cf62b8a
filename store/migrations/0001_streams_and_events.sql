-- The store: streams, their events, and the schemas the events were encoded with.

-- Which store this is, and which history of it.
--
-- Transaction ids mean something only in the cluster that gave them out. Up to `settled`, events count as visible whatever their
-- transaction ids say: they came here by a dump, a logical copy or an upgrade, and `adopt` moved the line.
create table annals.identity (
    is_only boolean primary key default true check (is_only),
    store_id uuid not null default gen_random_uuid(),
    system_identifier text not null,
    settled bigint not null default 0,
    history int not null default 1
);
insert into annals.identity (system_identifier) select system_identifier::text from pg_control_system();

comment on column annals.identity.system_identifier is 'of the cluster that this history belongs to; in another one, nothing is appended or followed';
comment on column annals.identity.history is 'grows with each adoption';

-- Who took a store over into another cluster, and why.
create table annals.adoptions (
    history int primary key,
    store_id uuid not null,
    system_identifier text not null,
    settled bigint not null,
    is_copy boolean not null,
    reason text not null check (length(btrim(reason)) > 0),
    role text not null default session_user,
    adopted_at timestamptz not null default clock_timestamp()
);
comment on table annals.adoptions is 'a row for each adoption, with what it made of the identity; insert-only';

-- The identifier of the cluster that this session is in. Reading it means reading a file, so a session reads it once.
create function annals.system_identifier() returns text
language plpgsql volatile
as $$
declare
    known text := current_setting('annals.system_identifier', true);
begin
    if known is null or known = '' then
        known := (select c.system_identifier::text from pg_control_system() c);
        perform set_config('annals.system_identifier', known, false);
    end if;
    return known;
end
$$;

-- Which run of which history this is: changes with everything after which what a client knew of the database may not hold any
-- more: a crash, a promotion, a restore, an adoption. An error on a standby that is not promoted.
create function annals.incarnation() returns text
language plpgsql stable
set search_path = annals, pg_temp
as $$
begin
    return (
        select concat_ws(
            '/', i.store_id, i.history, system_identifier(), substring(pg_walfile_name(pg_current_wal_insert_lsn()) for 8),
            (select d.oid from pg_database d where d.datname = current_database()),
            (extract(epoch from pg_postmaster_start_time()) * 1000000)::bigint
        )
        from identity i
        where i.is_only
    );
end
$$;

-- Whether an event was visible at a bound of the log: a snapshot, the highest position that was visible then, and the line up to
-- which everything counts as visible. The transaction id alone does not say it: after a crash, the server gives out again the
-- ids of transactions whose log was not flushed, and snapshots from before the crash call them completed. Their events have
-- higher positions than any that was visible before.
create function annals.is_seen(event_position bigint, xid xid8, snapshot pg_snapshot, bound_position bigint, settled bigint)
returns boolean
language sql immutable parallel safe
as $$
    select event_position <= bound_position and (event_position <= settled or pg_visible_in_snapshot(xid, snapshot))
$$;

-- What administrators did to recorded events, and why.
create table annals.admin_log (
    number bigint generated always as identity primary key,
    xid xid8 not null default pg_current_xact_id(),
    recorded_at timestamptz not null default clock_timestamp(),
    role text not null default session_user,
    reason text not null check (length(btrim(reason)) > 0)
);
create index admin_log_xid on annals.admin_log (xid);

comment on table annals.admin_log is 'one row for each transaction that was allowed to change recorded events; insert-only';

-- Lets the rest of this transaction change recorded events, and says so for ever.
create function annals.administer(reason text) returns void
language sql
security definer
set search_path = annals, pg_temp
as $$ insert into annals.admin_log (reason) values (administer.reason) $$;

-- Refuses to change or remove what is recorded, whoever asks: owners and superusers, too.
create function annals.refuse_change() returns trigger
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    if tg_relid <> 'annals.admin_log'::regclass
        and exists (select from annals.admin_log l where l.xid = pg_current_xact_id_if_assigned())
    then
        return null;
    end if;
    raise exception '% of %.% is refused: what is recorded is never changed', tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege',
            hint = 'For administration: select annals.administer(''the reason'') first, in the same transaction. It is logged.';
end
$$;

-- Makes a table insert-only: for everybody, replication included.
create function annals.make_insert_only(target regclass) returns void
language plpgsql
set search_path = annals, pg_temp
as $$
begin
    execute format(
        'create trigger insert_only before update or delete or truncate on %s for each statement execute function annals.refuse_change()',
        target
    );
    execute format('alter table %s enable always trigger insert_only', target);
end
$$;

select annals.make_insert_only('annals.admin_log');
select annals.make_insert_only('annals.adoptions');

-- Whether a definition is an Avro record of this full name, as far as SQL can tell. What is no JSON at all is an error.
create function annals.is_record(definition text, full_name text) returns boolean
language sql immutable parallel safe
as $$
    select coalesce(
        d.definition ->> 'type' = 'record' and json_typeof(d.definition -> 'fields') = 'array'
        and is_record.full_name = case
            when d.definition ->> 'name' like '%.%' or coalesce(d.definition ->> 'namespace', '') = '' then d.definition ->> 'name'
            else d.definition ->> 'namespace' || '.' || (d.definition ->> 'name')
        end,
        false
    )
    from (select is_record.definition::json as definition) d
$$;

-- A schema of an event type, as the producing service had it compiled in, for each category whose events it wrote: a new
-- version has to read all that the earlier ones of its category and name wrote. The relay needs no files.
create table annals.schemas (
    fingerprint bigint not null,
    category text collate "C" not null,
    full_name text collate "C" not null,
    definition text not null,
    recorded_at timestamptz not null default now(),
    constraint schemas_pkey primary key (fingerprint, category),
    constraint schemas_category check (category ~ '^[A-Za-z][A-Za-z0-9_]{0,99}$'),
    constraint schemas_full_name check (octet_length(full_name) between 1 and 200),
    constraint schemas_fingerprint check (
        fingerprint = ('x' || encode(substr(sha256(convert_to(definition, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint
    ),
    constraint schemas_record check (annals.is_record(definition, full_name))
);
create index schemas_versions on annals.schemas (category, full_name, recorded_at);

comment on table annals.schemas is
    'Avro schemas of the events of a category; fingerprint = first 8 bytes of the SHA-256 of definition; insert-only';

select annals.make_insert_only('annals.schemas');

-- Registers a version of a schema for the events of a category; harmless when it is registered.
create function annals.register_schema(category text, fingerprint bigint, full_name text, definition text) returns void
language sql
security definer
set search_path = annals, pg_temp
as $$
    insert into annals.schemas (fingerprint, category, full_name, definition, recorded_at)
    values (
        register_schema.fingerprint, register_schema.category, register_schema.full_name, register_schema.definition,
        clock_timestamp()
    )
    on conflict on constraint schemas_pkey do nothing
$$;

-- Whether a text can name a stream: the category begins with a letter, and after a first - comes what
-- tells the stream from the others. Each category is a legal end of a topic's name, and no two collide
-- in Kafka's metric names, where . and _ are the same.
create function annals.is_stream_name(name text) returns boolean
language sql immutable parallel safe
as $$
    select octet_length(name) <= 200 and name ~ '^[A-Za-z][A-Za-z0-9_]{0,99}(-[A-Za-z0-9._:@+=~-]+)?$'
$$;

-- A stream's row is its lock and its version. Every append updates it: the free space keeps these updates HOT.
create table annals.streams (
    name text collate "C" primary key,
    category text collate "C" not null,
    version bigint not null
) with (fillfactor = 70);

comment on column annals.streams.version is
    'version of the last event, 0-based; -1 only inside the transaction that creates the row';

-- Drawn inside the append, after the stream rows are locked. The cache must stay 1: a session that
-- keeps a block of numbers would give a later event of a stream a lower position than an earlier one.
create sequence annals.positions as bigint cache 1;

-- The one copy of the truth. `payload` is the contract, `data` the same event for people and SQL.
create table annals.events (
    position bigint primary key,
    stream text collate "C" not null,
    version bigint not null,
    event_id uuid not null,
    category text collate "C" not null,
    event_type text collate "C" not null,
    fingerprint bigint not null,
    recorded_at timestamptz not null,
    payload bytea not null,
    data jsonb not null,
    metadata jsonb not null,
    headers jsonb not null,
    xid xid8 not null default pg_current_xact_id(),
    constraint events_stream_version unique (stream, version),
    constraint events_event_id unique (event_id)
);
create index events_category on annals.events (category, position);
create index events_correlation on annals.events ((metadata ->> 'correlation_id'), position)
    where metadata ->> 'correlation_id' is not null;
create index events_causation on annals.events ((metadata ->> 'causation_id'), position)
    where metadata ->> 'causation_id' is not null;

select annals.make_insert_only('annals.events');

comment on table annals.events is 'all events; insert-only';

-- What administrators removed from the events: followers and relays that passed such an event know by it that it was there.
create table annals.removed_events (
    position bigint primary key,
    stream text collate "C" not null,
    version bigint not null,
    event_id uuid not null,
    category text collate "C" not null,
    event_type text collate "C" not null,
    xid xid8 not null,
    removed_by xid8 not null default pg_current_xact_id(),
    removed_at timestamptz not null default clock_timestamp()
);
create index removed_events_event_id on annals.removed_events (event_id);
select annals.make_insert_only('annals.removed_events');
comment on table annals.removed_events is 'a row for each removed event, without its content; insert-only; admin_log has the reason, by removed_by';

create function annals.keep_removed() returns trigger
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    insert into removed_events (position, stream, version, event_id, category, event_type, xid)
    select r.position, r.stream, r.version, r.event_id, r.category, r.event_type, r.xid from removed r
    on conflict do nothing;
    return null;
end
$$;
create trigger keep_removed after delete on annals.events
    referencing old table as removed for each statement execute function annals.keep_removed();
alter table annals.events enable always trigger keep_removed;
comment on column annals.events.metadata is
    'correlation_id, causation_id, actor, traceparent, tracestate, where known';
comment on column annals.events.xid is
    'the transaction that wrote the event: says whether a snapshot sees it, also when its row of the outbox is gone';
comment on column annals.events.headers is 'free headers of the producing service, text to text';

-- The position from which reading forwards misses nothing that was recorded at `moment` or later; above
-- all positions when there is no such event. A search by halves over the primary key: times rise with
-- positions, but for appends at the same moment, for which a second is let in hand.
create function annals.position_at(moment timestamptz) returns bigint
language plpgsql stable
set search_path = annals, pg_temp
as $$
declare
    earlier bigint := 0;
    later bigint := (select coalesce(max(e.position), 0) + 1 from events e);
    middle bigint;
    found_at bigint;
    found_time timestamptz;
begin
    while later - earlier > 1 loop
        middle := earlier + (later - earlier) / 2;
        select e.position, e.recorded_at into found_at, found_time
        from events e where e.position >= middle and e.position < later order by e.position limit 1;
        if not found or found_time >= moment - interval '1 second' then
            later := middle;
        else
            earlier := found_at;
        end if;
    end loop;
    return later;
end
$$;

-- What is still to be published: thin, never updated, never deleted. Old partitions are dropped.
-- The transaction id, not the position, says what became visible between two snapshots.
create table annals.outbox (
    position bigint not null,
    xid xid8 not null default pg_current_xact_id(),
    shard smallint not null,
    primary key (position)
) partition by range (position);
create index outbox_xid on annals.outbox (xid);
select annals.make_insert_only('annals.outbox');

-- The number of shards is a constant of the installation, not of a replica or a topic: it is fixed
-- here and changed only by a drained operation that replaces this function (relay_reshard). Stable, though a constant:
-- plans that have an immutable function worked out are not made again when it is replaced.
create function annals.shard_count() returns smallint
language sql stable parallel safe
as $$ select 8::smallint $$;

-- The shard of a stream. PostgreSQL keeps this hash stable, since hash partitioning stands on it.
create function annals.shard_of(stream text) returns smallint
language sql stable parallel safe
as $$
    select mod(hashtextextended(shard_of.stream collate "C", 0) & 9223372036854775807, annals.shard_count()::bigint)::smallint
$$;

-- Positions in one partition of the outbox: some 350 MB with its indexes when full.
create function annals.outbox_partition_positions() returns bigint
language sql immutable parallel safe
as $$ select 4194304::bigint $$;

-- Makes sure that the outbox has partitions for at least `ahead` more positions than are drawn now;
-- returns the first position that has none. Harmless at any time and from anybody: the lock makes
-- one caller create and the others wait, and attaching a table does not lock out inserts.
create function annals.outbox_extend(ahead bigint) returns bigint
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
declare
    size constant bigint := outbox_partition_positions();
    drawn bigint;
    upper bigint;
    partition text;
begin
    select last_value into drawn from positions;
    select coalesce(max(substring(c.relname from 'outbox_(\d+)$')::bigint + 1), 0) * size into upper
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'outbox'::regclass;
    if upper > drawn + ahead then
        return upper;
    end if;

    perform pg_advisory_xact_lock(hashtextextended('annals.outbox_extend:' || current_schema(), 0));
    select coalesce(max(substring(c.relname from 'outbox_(\d+)$')::bigint + 1), drawn / size) * size into upper
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'outbox'::regclass;
    while upper <= drawn + ahead loop
        partition := format('outbox_%s', to_char(upper / size, 'FM0000000'));
        execute format('create table %I (like outbox including defaults)', partition);
        execute format('alter table outbox attach partition %I for values from (%s) to (%s)', partition, upper, upper + size);
        perform make_insert_only(partition::regclass);
        upper := upper + size;
    end loop;
    return upper;
end
$$;

select annals.outbox_extend(4 * annals.outbox_partition_positions());

-- What was dropped from the outbox. A window that reaches back to these transactions is read from the events: to those that had
-- not ended in the snapshot of a window's begin, and had in the one that the partition was dropped under.
create table annals.outbox_dropped (
    lower bigint primary key,
    upper bigint not null,
    xid_min xid8 not null,
    xid_max xid8 not null,
    snapshot pg_snapshot not null,
    settled bigint not null,
    recorded_at timestamptz not null default clock_timestamp()
);
select annals.make_insert_only('annals.outbox_dropped');

comment on table annals.outbox_dropped is
    'a row for each dropped partition of the outbox: its positions from lower, below upper, the lowest and highest transaction id in it, and the snapshot and settled position when it was dropped; insert-only';
