-- The store: streams, their events, and the schemas the events were encoded with.

-- The oldest version of Annals that works with these tables, by the number of its last migration. A
-- migration that an older version cannot work with replaces this function.
create function annals.oldest_client() returns bigint
language sql immutable parallel safe
as $$ select 5::bigint $$;

-- The identity of the store, and its history.
--
-- Transaction ids have a meaning only in the cluster that assigned them. Events up to the position
-- `settled` count as visible, with any transaction id: they came by a dump, a logical copy
-- or an upgrade, and `adopt` raised `settled`.
create table annals.identity (
    is_only boolean primary key default true check (is_only),
    store_id uuid not null default gen_random_uuid(),
    system_identifier text not null,
    settled bigint not null default 0,
    history int not null default 1
);
insert into annals.identity (system_identifier) select system_identifier::text from pg_control_system();

comment on column annals.identity.system_identifier is 'the cluster that this history belongs to; other clusters refuse appends and followers';
comment on column annals.identity.history is 'grows with each adoption';

-- The adoptions of the store by other clusters, with their reasons.
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
comment on table annals.adoptions is 'one row for each adoption, with the resulting identity; insert-only';

-- The identifier of the cluster of this session. It is in a file, so a session reads it once.
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

-- Identifies the current run of the current history. It changes with each event that can invalidate
-- a client's knowledge of the database: a crash, a promotion, a restore, an adoption. An error on a
-- standby.
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

-- Whether an event was visible at a bound of the log: a snapshot, the highest visible position, and
-- the settled position. The transaction id alone is not sufficient: after a crash, the server
-- reuses the ids of transactions whose log was not flushed, and older snapshots regard these ids as
-- completed. Their events have higher positions than all events that were visible before.
create function annals.is_visible_at(event_position bigint, xid xid8, snapshot pg_snapshot, bound_position bigint, settled bigint)
returns boolean
language sql immutable parallel safe
as $$
    select event_position <= bound_position and (event_position <= settled or pg_visible_in_snapshot(xid, snapshot))
$$;

-- Transactions in which administrators changed recorded events, with their reasons.
create table annals.admin_log (
    number bigint generated always as identity primary key,
    xid xid8 not null default pg_current_xact_id(),
    recorded_at timestamptz not null default clock_timestamp(),
    role text not null default session_user,
    reason text not null check (length(btrim(reason)) > 0)
);
create index admin_log_xid on annals.admin_log (xid);

comment on table annals.admin_log is 'one row for each transaction that may change recorded events; insert-only';

-- Lets the rest of this transaction change recorded events, and logs the reason.
create function annals.administer(reason text) returns void
language sql
security definer
set search_path = annals, pg_temp
as $$ insert into annals.admin_log (reason) values (administer.reason) $$;

-- Refuses changes of recorded rows, also by owners and superusers.
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
    raise exception '% of %.% is refused: recorded rows are never changed', tg_op, tg_table_schema, tg_table_name
        using errcode = 'insufficient_privilege',
            hint = 'For administration: select annals.administer(''the reason'') first, in the same transaction. It is logged.';
end
$$;

-- Makes a table insert-only for all roles, including replication.
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

-- Whether a definition is an Avro record with this full name, as far as SQL can check. Text that is
-- not JSON is an error.
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

-- The schemas of event types, as compiled into the producing services, for each category with such
-- events. A new version must be able to read the events of all earlier versions of its category and
-- name.
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

-- Registers a version of a schema for the events of a category; no effect if it is registered.
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

-- Whether a text is a legal stream name: a category that begins with a letter, and an identifier
-- after the first `-`. Each category is a legal end of a topic name, and no two categories collide
-- in Kafka's metric names, which do not distinguish `.` and `_`.
create function annals.is_stream_name(name text) returns boolean
language sql immutable parallel safe
as $$
    select octet_length(name) <= 200 and name ~ '^[A-Za-z][A-Za-z0-9_]{0,99}(-[A-Za-z0-9._:@+=~-]+)?$'
$$;

-- The row of a stream is its lock. Appends do not update it: while a snapshot is open anywhere, the
-- versions of an updated row could not be removed, and each append would pass over all of them. The
-- version of a stream is that of its last event, or `version_min` if an administrator removed later
-- events.
create table annals.streams (
    name text collate "C" primary key,
    category text collate "C" not null,
    version_min bigint not null
);

comment on table annals.streams is 'one row for each stream: its lock; the version of a stream is the highest in events, and at least version_min';
comment on column annals.streams.version_min is
    'a version that the stream has reached: 0-based; raised when events are removed; -1 only in the transaction that creates the row';

-- Drawn in the append, after the stream rows are locked. The cache must stay 1: with a larger
-- cache, a later event of a stream could get a lower position than an earlier one.
create sequence annals.positions as bigint cache 1;

-- The source of truth. Consumers depend on `payload`; `data` is the same event for people and SQL.
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
    data jsonb,
    metadata jsonb not null,
    headers jsonb not null,
    xid xid8 not null default pg_current_xact_id(),
    constraint events_stream_version unique (stream, version),
    constraint events_event_id unique (event_id)
)
-- Rows never change: a vacuum after each million inserts freezes them while their pages are in
-- memory, and the vacuum against transaction id wraparound has nothing left to read or write.
with (
    autovacuum_vacuum_insert_scale_factor = 0,
    autovacuum_vacuum_insert_threshold = 1000000,
    autovacuum_freeze_min_age = 0
);
create index events_category on annals.events (category, position);
create index events_correlation on annals.events ((metadata ->> 'correlation_id'), position)
    where metadata ->> 'correlation_id' is not null;
create index events_causation on annals.events ((metadata ->> 'causation_id'), position)
    where metadata ->> 'causation_id' is not null;

select annals.make_insert_only('annals.events');

-- The version of a stream; null: there is no such stream. For administration: statements that are
-- executed often contain the expression.
create function annals.stream_version(stream text) returns bigint
language sql stable
set search_path = annals, pg_temp
as $$
    select greatest(s.version_min, (
        select e.version from annals.events e where e.stream = s.name order by e.version desc limit 1
    ))
    from annals.streams s where s.name = stream_version.stream
$$;

comment on table annals.events is 'all events; insert-only';

-- Events that administrators removed. Followers and relays that have processed such an event
-- recognize it here.
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
create index removed_events_stream on annals.removed_events (stream, version);
select annals.make_insert_only('annals.removed_events');
comment on table annals.removed_events is 'one row for each removed event, without its content; insert-only; admin_log has the reason, by removed_by';

create function annals.keep_removed() returns trigger
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    insert into removed_events (position, stream, version, event_id, category, event_type, xid)
    select r.position, r.stream, r.version, r.event_id, r.category, r.event_type, r.xid from removed r
    on conflict do nothing;
    -- The version of a removed event is not used again. In the order in which appends lock streams.
    perform from streams s where s.name in (select r.stream from removed r) order by s.name for update;
    update streams s set version_min = r.version
    from (select r.stream, max(r.version) as version from removed r group by r.stream) r
    where s.name = r.stream and s.version_min < r.version;
    return null;
end
$$;
create trigger keep_removed after delete on annals.events
    referencing old table as removed for each statement execute function annals.keep_removed();
alter table annals.events enable always trigger keep_removed;
comment on column annals.events.metadata is
    'correlation_id, causation_id, actor, traceparent, tracestate, if known';
comment on column annals.events.xid is
    'the transaction that wrote the event: determines its visibility in a snapshot, also after its outbox row is dropped';
comment on column annals.events.headers is 'free headers of the producing service, text to text';

-- The position from which a forward read misses no event recorded at `moment` or later; above all
-- positions if there is no such event. A binary search over the primary key: times rise with
-- positions, except among concurrent appends, for which one second is allowed.
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

-- The events to publish: few columns, never updated, never deleted. Old partitions are dropped. The
-- transaction id, not the position, determines what became visible between two snapshots. The index
-- finds the rows of a transaction below a position, however many it has above. No index begins with
-- the position: no statement reads by positions alone.
create table annals.outbox (
    position bigint not null,
    xid xid8 not null default pg_current_xact_id(),
    shard smallint not null
) partition by range (position);
create index outbox_xid_position on annals.outbox (xid, position);
select annals.make_insert_only('annals.outbox');

-- The late events of a window up to `until`, which is the present: events of transactions that had
-- not ended in the snapshot `since`, have an id below `next_xid` and have ended now, at positions
-- above `settled` and up to `bound`, those of the window's start. All positions, if they are at
-- most `rows_max`; else none, and the lowest of them only. Rows of transactions that are still
-- running or were rolled back are not read, nor those above `bound`; of one with more than
-- `rows_max` below it, so many. Transaction ids of another history do not say whether it had ended.
create function annals.late_events(
    since pg_snapshot, next_xid xid8, bound bigint, settled bigint, until pg_snapshot, is_other_history boolean,
    rows_max bigint, out positions bigint[], out lowest bigint
)
language plpgsql stable parallel safe
set search_path = annals, pg_temp
-- Without them, a limit lets the planner scan all positions for the first rows.
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
#variable_conflict use_variable
declare
    -- More ids at once than connections are those of savepoints.
    ids_max constant bigint := 100;
    present constant pg_snapshot := pg_current_snapshot();
    first constant bigint := pg_snapshot_xmax(since)::text::bigint;
    high constant xid8 := case when is_other_history then next_xid else least(next_xid, pg_snapshot_xmax(until)) end;
    low xid8 := least(first + ids_max, high::text::bigint)::text::xid8;
    ids constant xid8[] := array(
        select x.xid
        from (
            select pg_snapshot_xip(since)
            union all
            select i::text::xid8 from generate_series(first, low::text::bigint - 1) i
        ) x (xid)
        where case
            when is_other_history then true
            when not pg_visible_in_snapshot(x.xid, until) then false
            -- An id that the server has not assigned, as after a crash, cannot be asked about.
            when pg_visible_in_snapshot(x.xid, present) then coalesce(pg_xact_status(x.xid) = 'committed', true)
            else false
        end
    );
    part record;
begin
    positions := array(
        (
            select o.position from outbox o
            where o.xid = any (ids) and o.position > settled and o.position <= bound
            limit rows_max + 1
        )
        union all
        (
            select o.position from outbox o
            where o.xid >= low and o.xid < high and o.position > settled and o.position <= bound
            limit rows_max + 1
        )
    );
    if cardinality(positions) <= rows_max then
        return;
    end if;
    positions := null;
    lowest := (
        select min(f.position)
        from unnest(ids) x (xid)
        cross join lateral (
            select o.position from outbox o
            where o.xid = x.xid and o.position > settled and o.position <= bound
            order by o.position
            limit 1
        ) f
    );
    -- Part by part in the order of the index, in which the lowest position of a transaction is its
    -- first: the next part begins behind the last transaction of this one.
    while low < high loop
        select min(p.position) as lowest, max(p.xid::text::bigint) as last into part
        from (
            select o.xid, o.position from outbox o
            where o.xid >= low and o.xid < high and o.position > settled and o.position <= bound
            order by o.xid, o.position
            limit rows_max
        ) p;
        exit when part.last is null;
        lowest := least(lowest, part.lowest);
        low := (part.last + 1)::text::xid8;
    end loop;
end
$$;

-- The number of shards is a constant of the installation, not of a replica or a topic. Only
-- relay_reshard changes it, by replacing this function while nothing waits for publication. Stable
-- and not immutable: plans with a pre-evaluated immutable function would not notice the
-- replacement.
create function annals.shard_count() returns smallint
language sql stable parallel safe
as $$ select 8::smallint $$;

-- The shard of a stream. PostgreSQL keeps this hash stable, because hash partitioning depends on
-- it.
create function annals.shard_of(stream text) returns smallint
language sql stable parallel safe
as $$
    select mod(hashtextextended(shard_of.stream collate "C", 0) & 9223372036854775807, annals.shard_count()::bigint)::smallint
$$;

-- Positions per partition of the outbox: a full one has some 350 MB with its indexes.
create function annals.outbox_partition_positions() returns bigint
language sql immutable parallel safe
as $$ select 4194304::bigint $$;

-- Creates partitions of the outbox for at least `ahead` positions above the drawn ones, if
-- necessary, and for no more than sixteen partitions ahead; returns the first position without a
-- partition. Safe at any time and for concurrent callers: a lock serializes them, and attaching a
-- table does not lock out inserts.
create function annals.outbox_extend(ahead bigint) returns bigint
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
declare
    size constant bigint := outbox_partition_positions();
    ahead constant bigint := least(outbox_extend.ahead, 16 * size);
    drawn bigint;
    upper bigint;
    partition text;
begin
    select last_value into drawn from positions;
    select coalesce(max(substring(c.relname from 'outbox_([0-9]+)$')::bigint + 1), 0) * size into upper
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'outbox'::regclass;
    if upper > drawn + ahead then
        return upper;
    end if;

    perform pg_advisory_xact_lock(hashtextextended('annals.outbox_extend:' || current_schema(), 0));
    select coalesce(max(substring(c.relname from 'outbox_([0-9]+)$')::bigint + 1), drawn / size) * size into upper
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'outbox'::regclass;
    while upper <= drawn + ahead loop
        partition := format('outbox_%s', to_char(upper / size, 'FM0000000'));
        -- Without vacuums after inserts: a partition is dropped, not kept.
        execute format(
            'create table %I (like outbox including defaults) with (autovacuum_vacuum_insert_threshold = -1)', partition
        );
        execute format('alter table outbox attach partition %I for values from (%s) to (%s)', partition, upper, upper + size);
        perform make_insert_only(partition::regclass);
        upper := upper + size;
    end loop;
    return upper;
end
$$;

select annals.outbox_extend(4 * annals.outbox_partition_positions());

-- Dropped partitions of the outbox. A window that includes their transactions is read from the
-- events: transactions that had not ended in the snapshot of the window's start, and had ended in
-- the snapshot of the drop.
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
    'one row for each dropped partition of the outbox: its positions from lower, below upper, its lowest and highest transaction id, and the snapshot and settled position at the drop; insert-only';

-- States of aggregates, so that a load reads only the events behind them. A cache: every row can be
-- deleted at any time.
create table annals.snapshots (
    stream text collate "C" not null,
    fingerprint bigint not null,
    version bigint not null check (version >= 0),
    removed bigint not null,
    state_type text not null,
    state bytea not null,
    recorded_at timestamptz not null default clock_timestamp(),
    primary key (stream, fingerprint)
);
comment on table annals.snapshots is 'the last saved state of each stream and state schema; can be deleted at any time';
comment on column annals.snapshots.fingerprint is 'of the state''s Avro schema: first 8 bytes of the SHA-256 of its minified text';
comment on column annals.snapshots.version is 'the last event that the state has';
comment on column annals.snapshots.removed is
    'removed events up to this version that the state does not have; the snapshot is valid while their number is the same';

-- Deletes the snapshots of states that can have an event that an administrator removed or changed.
-- A snapshot that another session is writing meanwhile stays; if events were removed, `removed`
-- makes it invalid.
create function annals.delete_snapshots() returns trigger
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    delete from snapshots s
    using (select c.stream, min(c.version) as version from changed c group by c.stream) c
    where s.stream = c.stream and s.version >= c.version;
    return null;
end
$$;
create trigger delete_snapshots_of_removed after delete on annals.events
    referencing old table as changed for each statement execute function annals.delete_snapshots();
alter table annals.events enable always trigger delete_snapshots_of_removed;
create trigger delete_snapshots_of_changed after update on annals.events
    referencing old table as changed for each statement execute function annals.delete_snapshots();
alter table annals.events enable always trigger delete_snapshots_of_changed;
