-- The relay's state in PostgreSQL: few rows, updated in place. The relay's own statements use them.

-- Sessions of relays that run. A session begins with the start of a process, or after the loss of a
-- lease. All times are the database's.
create table annals.relay_sessions (
    session uuid primary key,
    deployment text collate "C" not null,
    instance text not null,
    transactional_ids text[] not null,
    process jsonb not null,
    is_ready boolean not null default false,
    joined_at timestamptz not null,
    seen_at timestamptz not null,
    lease interval not null,
    expires_at timestamptz not null,
    incarnation text not null
) with (fillfactor = 50);

comment on column annals.relay_sessions.transactional_ids is 'written before anything is published under them';
comment on column annals.relay_sessions.incarnation is
    'of the database when it joined: a session ends with it, since another one may not have its shards';
comment on column annals.relay_sessions.process is
    'the process: its id, and where it runs, so that another process there can tell whether it has ended';
comment on column annals.relay_sessions.is_ready is
    'has producers and reached Kafka at its last renewal: counts when shards are balanced';

-- Below, `deployment` is the name of a publication: the deployment's name, then an @ and the prefix
-- of its topics, if there is one:
-- `annals`, `annals@staging.`.

-- Deployments. A new generation begins from `relay_origins`, and ignores what earlier ones wrote to
-- Kafka.
create table annals.relay_deployments (
    deployment text collate "C" primary key,
    delivery text not null check (delivery in ('exactly-once', 'at-least-once')),
    generation int not null default 1,
    begun_at timestamptz not null default now(),
    forgotten_at timestamptz
);

comment on column annals.relay_deployments.forgotten_at is 'an operator let go of it: no relay of this name starts, until a rebase';

-- The checkpoints from which a generation begins, one for each shard. The first generation has
-- none: it begins with the first event.
create table annals.relay_origins (
    deployment text collate "C" not null,
    shard smallint not null,
    checkpoint jsonb not null,
    primary key (deployment, shard)
);

-- Leases of shards. The epoch only grows: with each acquisition, and with each expiry.
create table annals.relay_shards (
    deployment text collate "C" not null,
    shard smallint not null,
    owner uuid,
    epoch bigint not null default 0,
    fence text[] not null default '{}',
    write_number bigint not null default 0,
    taken_at timestamptz,
    primary key (deployment, shard)
) with (fillfactor = 50);

comment on column annals.relay_shards.fence is
    'transactional ids of earlier owners that may still have a transaction open: fenced before the shard is published';
comment on column annals.relay_shards.write_number is
    'the number of the last write that its owner had admitted: a write with a lower number is refused';

-- Serialises changes of a deployment's leases. Each is one statement, so none waits for a client.
create function annals.relay_lock(deployment text) returns void
language sql volatile
security definer
set search_path = annals, pg_temp
as $$ select pg_advisory_xact_lock(hashtextextended('annals relay ' || relay_lock.deployment, 0)) $$;

-- Ends sessions: expired ones, those in `gone`, and those that joined in another incarnation of the
-- database, which may have lost the shards that they acquired since. Their shards become free; the
-- next owner of a shard has to fence their transactional ids.
-- No lease lasts longer than its length from now: the clock can have been set back, for instance by
-- a promotion, and a session that ended before would keep its shards for as long as that.
create function annals.relay_expire_sessions(deployment text, gone uuid[]) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
declare
    over record;
    present constant text := incarnation();
begin
    update relay_sessions s set expires_at = clock_timestamp() + s.lease
    where s.deployment = relay_expire_sessions.deployment and s.expires_at > clock_timestamp() + s.lease;
    for over in
        delete from relay_sessions s
        where s.deployment = relay_expire_sessions.deployment
            and (
                s.expires_at <= clock_timestamp() or s.session = any (relay_expire_sessions.gone) or s.incarnation <> present
            )
        returning s.session, s.transactional_ids
    loop
        update relay_shards s
        set owner = null, epoch = s.epoch + 1, fence = s.fence || over.transactional_ids
        where s.deployment = relay_expire_sessions.deployment and s.owner = over.session;
        perform pg_notify('annals_relay', relay_expire_sessions.deployment);
    end loop;
end
$$;

-- Reads a deployment; the first relay that asks creates it.
create function annals.relay_register_deployment(deployment text, configured text)
returns table (delivery text, generation int, shards smallint)
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
declare
    forgotten timestamptz;
begin
    insert into relay_deployments (deployment, delivery) values (relay_register_deployment.deployment, relay_register_deployment.configured)
    on conflict on constraint relay_deployments_pkey do nothing;
    select d.forgotten_at into forgotten from relay_deployments d where d.deployment = relay_register_deployment.deployment;
    if forgotten is not null then
        raise exception 'deployment % was forgotten at %, and would publish every event again', relay_register_deployment.deployment, forgotten
            using errcode = 'object_not_in_prerequisite_state',
            hint = 'Set another relay.deployment; or `annals-relay rebase`, which continues behind the events that its topics have.';
    end if;
    return query
    select d.delivery, d.generation, shard_count() from relay_deployments d where d.deployment = relay_register_deployment.deployment;
end
$$;

-- Begins a session. An instance has one session at a time: an earlier one of the same process is
-- ended, and so is `gone`, whose process has ended, as the caller knows. While another session of
-- the instance lives, none is begun: two processes with one name would end each other's sessions
-- for ever. One row: `joined`; `begun anew` if the deployment has another generation now; `taken`,
-- with the living session.
create function annals.relay_join(
    deployment text, generation int, instance text, session uuid, transactional_ids text[], lease interval, process jsonb,
    gone uuid,
    out outcome text, out living uuid, out living_process jsonb, out joined_us bigint, out seen_us bigint, out expires_ms bigint
)
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
declare
    earlier record;
begin
    perform relay_lock(relay_join.deployment);
    if not exists (
        select from relay_deployments d
        where d.deployment = relay_join.deployment and d.generation = relay_join.generation
    ) then
        outcome := 'begun anew';
        return;
    end if;
    perform relay_expire_sessions(relay_join.deployment, array(
        select s.session from relay_sessions s
        where s.deployment = relay_join.deployment and s.instance = relay_join.instance
            and (s.session = relay_join.gone or s.process -> 'id' = relay_join.process -> 'id')
    ));
    select * into earlier from relay_sessions s
    where s.deployment = relay_join.deployment and s.instance = relay_join.instance
    order by s.expires_at desc
    limit 1;
    if found then
        outcome := 'taken';
        living := earlier.session;
        living_process := earlier.process;
        joined_us := (extract(epoch from earlier.joined_at) * 1000000)::bigint;
        seen_us := (extract(epoch from earlier.seen_at) * 1000000)::bigint;
        expires_ms := ceil(extract(epoch from earlier.expires_at - clock_timestamp()) * 1000)::bigint;
        return;
    end if;
    insert into relay_shards (deployment, shard)
    select relay_join.deployment, shard from generate_series(0, shard_count() - 1) shard
    on conflict do nothing;
    insert into relay_sessions (
        session, deployment, instance, transactional_ids, process, joined_at, seen_at, lease, expires_at, incarnation
    )
    values (
        relay_join.session, relay_join.deployment, relay_join.instance, relay_join.transactional_ids, relay_join.process,
        clock_timestamp(), clock_timestamp(), relay_join.lease, clock_timestamp() + relay_join.lease, incarnation()
    );
    outcome := 'joined';
end
$$;

-- Renews a session's lease, ends expired sessions, and reads all leases: one row for each shard,
-- with the number of ready sessions, this one included, and the number of those that joined before
-- it. No row: the session does not exist.
create function annals.relay_renew_lease(deployment text, session uuid, is_ready boolean, lease interval)
returns table (shard smallint, epoch bigint, is_mine boolean, is_free boolean, members bigint, rank bigint)
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock(relay_renew_lease.deployment);
    -- Its own first: a lease that no other session has ended can be renewed, however late, in the
    -- same incarnation of the database.
    update relay_sessions s
    set seen_at = clock_timestamp(), expires_at = clock_timestamp() + relay_renew_lease.lease, is_ready = relay_renew_lease.is_ready
    where s.session = relay_renew_lease.session and s.incarnation = incarnation();
    if not found then
        return;
    end if;
    perform relay_expire_sessions(relay_renew_lease.deployment, null);
    return query
    with ready as (
        select s.session, s.joined_at from relay_sessions s
        where s.deployment = relay_renew_lease.deployment and (s.is_ready or s.session = relay_renew_lease.session)
    ),
    me as (select r.joined_at from ready r where r.session = relay_renew_lease.session)
    select
        s.shard, s.epoch, s.owner is not distinct from relay_renew_lease.session, s.owner is null,
        (select count(*) from ready),
        (select count(*) from ready r, me where (r.joined_at, r.session) < (me.joined_at, relay_renew_lease.session))
    from relay_shards s where s.deployment = relay_renew_lease.deployment order by s.shard;
end
$$;

-- Acquires those of the shards that are free, for a living session: one row for each, with its new
-- epoch.
create function annals.relay_acquire_shards(deployment text, session uuid, shards smallint[])
returns table (shard smallint, epoch bigint)
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock(relay_acquire_shards.deployment);
    return query
    update relay_shards s
    set owner = relay_acquire_shards.session, epoch = s.epoch + 1, write_number = 0, taken_at = clock_timestamp()
    where s.deployment = relay_acquire_shards.deployment and s.shard = any (shards) and s.owner is null
        and exists (
            select from relay_sessions r where r.session = relay_acquire_shards.session and r.incarnation = incarnation()
        )
    returning s.shard, s.epoch;
end
$$;

-- Releases shards of which everything published is committed, if the session still owns them in
-- this epoch.
create function annals.relay_release_shards(deployment text, session uuid, shards smallint[], epochs bigint[]) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock(relay_release_shards.deployment);
    update relay_shards s set owner = null
    from unnest(shards, epochs) as given (shard, epoch)
    where s.deployment = relay_release_shards.deployment and s.shard = given.shard and s.epoch = given.epoch
        and s.owner = relay_release_shards.session;
    perform pg_notify('annals_relay', relay_release_shards.deployment);
end
$$;

-- Ends a session. Unless it is clean, the next owners of its shards have to fence it.
create function annals.relay_leave(deployment text, session uuid, is_clean boolean) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock(relay_leave.deployment);
    if is_clean then
        update relay_shards s set owner = null
        where s.deployment = relay_leave.deployment and s.owner = relay_leave.session;
        delete from relay_sessions s where s.session = relay_leave.session;
        perform pg_notify('annals_relay', relay_leave.deployment);
    else
        update relay_sessions s set expires_at = '-infinity' where s.session = relay_leave.session;
        perform relay_expire_sessions(relay_leave.deployment, null);
    end if;
end
$$;

-- The transactional ids to fence before these leases are published. Null if the session has lost
-- one of the leases: its ids are then for the next owner to fence, and an empty list would not mean
-- that there are none.
create function annals.relay_ids_to_fence(deployment text, session uuid, shards smallint[], epochs bigint[]) returns text[]
language sql stable
security definer
set search_path = annals, pg_temp
as $$
    with owned as (
        select s.fence from relay_shards s
        join unnest(relay_ids_to_fence.shards, relay_ids_to_fence.epochs) as given (shard, epoch)
            on s.shard = given.shard and s.epoch = given.epoch
        where s.deployment = relay_ids_to_fence.deployment and s.owner = relay_ids_to_fence.session
    )
    select array(select distinct id from owned, unnest(owned.fence) as id order by id)
    where (select count(*) from owned) = cardinality(relay_ids_to_fence.shards)
$$;

-- Removes fenced transactional ids from the shards that the session still owns.
create function annals.relay_record_fenced(
    deployment text, session uuid, shards smallint[], epochs bigint[], transactional_ids text[]
) returns void
language sql volatile
security definer
set search_path = annals, pg_temp
as $$
    update relay_shards s
    set fence = array(select id from unnest(s.fence) as id where id <> all (relay_record_fenced.transactional_ids))
    from unnest(relay_record_fenced.shards, relay_record_fenced.epochs) as given (shard, epoch)
    where s.deployment = relay_record_fenced.deployment and s.shard = given.shard and s.epoch = given.epoch
        and s.owner = relay_record_fenced.session
$$;

-- Quarantined streams and categories: one of their events cannot be published, and later ones wait
-- behind it, while everything else is published. Each entry has a cursor of its own. Its progress
-- is committed in Kafka first, in the shard's checkpoint, and recorded here afterwards.
create table annals.relay_quarantine (
    entry bigint generated always as identity primary key,
    deployment text collate "C" not null,
    shard smallint not null,
    kind text collate "C" not null check (kind in ('stream', 'category')),
    name text collate "C" not null,
    cursor jsonb not null,
    cause text not null,
    reason text not null,
    position bigint,
    attempts int not null default 1,
    is_retry_requested boolean not null default false,
    quarantined_at timestamptz not null default now(),
    tried_at timestamptz not null default now(),
    unique (deployment, shard, kind, name)
);

comment on column annals.relay_quarantine.cursor is 'every event of the entry before it is published';
comment on column annals.relay_quarantine.position is 'the position of the event that cannot be published; null for a category';
comment on column annals.relay_quarantine.is_retry_requested is 'an operator asked to retry';

-- Events that a deployment does not publish: an operator skipped them, or its topics have them from
-- a lost history. The latter have no stream here: the next event of the stream has its predecessor
-- in the topic.
create table annals.relay_skipped (
    deployment text collate "C" not null,
    position bigint not null,
    stream text collate "C",
    version bigint,
    primary key (deployment, position),
    check ((stream is null) = (version is null))
);
create index relay_skipped_stream on annals.relay_skipped (deployment, stream, version) where stream is not null;

-- The actions of operators.
create table annals.relay_actions (
    action bigint generated always as identity primary key,
    deployment text collate "C" not null,
    verb text not null,
    kind text,
    name text collate "C",
    position bigint,
    reason text,
    done_by text not null default session_user,
    done_at timestamptz not null default clock_timestamp()
);

-- Admits a write of a relay: the session owns all of the leases, and no write with a higher number
-- was admitted under them. Without that number, a statement that a relay gave up, or that it began
-- before it lost its producers, could still be executed at any later time. And the database is the
-- one that the cursors are of: a cursor of a lost history means something else in the history that
-- goes on.
create function annals.relay_admit_write(
    deployment text, session uuid, shards smallint[], epochs bigint[], write_number bigint, incarnation text
)
returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock(relay_admit_write.deployment);
    if relay_admit_write.incarnation <> incarnation() then
        return false;
    end if;
    if cardinality(relay_admit_write.shards) <> (
        select count(*) from relay_shards s
        join unnest(relay_admit_write.shards, relay_admit_write.epochs) as given (shard, epoch)
            on s.shard = given.shard and s.epoch = given.epoch
        where s.deployment = relay_admit_write.deployment and s.owner = relay_admit_write.session and s.write_number <= relay_admit_write.write_number
    ) then
        return false;
    end if;
    update relay_shards s set write_number = relay_admit_write.write_number
    where s.deployment = relay_admit_write.deployment and s.shard = any (relay_admit_write.shards);
    return true;
end
$$;

-- Records the cursors of quarantine entries in committed checkpoints; an entry without a cursor has
-- ended, and is removed. False, and nothing is written, if the write is not admitted: another
-- session may have advanced the entries.
create function annals.relay_advance_quarantine(
    deployment text, session uuid, shards smallint[], epochs bigint[], write_number bigint, incarnation text, entries bigint[],
    cursors jsonb[]
) returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    if not relay_admit_write(relay_advance_quarantine.deployment, session, shards, epochs, write_number, relay_advance_quarantine.incarnation) then
        return false;
    end if;
    delete from relay_quarantine q
    using unnest(entries, cursors) as ended (entry, cursor)
    where q.entry = ended.entry and ended.cursor is null
        and q.deployment = relay_advance_quarantine.deployment and q.shard = any (shards);
    update relay_quarantine q set cursor = moved.cursor
    from unnest(entries, cursors) as moved (entry, cursor)
    where q.entry = moved.entry and moved.cursor is not null
        and q.deployment = relay_advance_quarantine.deployment and q.shard = any (shards);
    return true;
end
$$;

-- Quarantines `[{"kind", "name", "cause", "reason", "position"}]`: a category in all of these
-- shards, a stream in its own shard, if that is among them. An entry begins at the committed cursor
-- of its shard (`cursors`), or at the cursor of its quarantined category. An existing entry keeps
-- its cursor. False if the write is not admitted.
create function annals.relay_add_to_quarantine(
    deployment text, session uuid, shards smallint[], epochs bigint[], write_number bigint, incarnation text, cursors jsonb[],
    refused jsonb
) returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    if not relay_admit_write(relay_add_to_quarantine.deployment, session, shards, epochs, write_number, relay_add_to_quarantine.incarnation) then
        return false;
    end if;
    insert into relay_quarantine as q (deployment, shard, kind, name, cursor, cause, reason, position)
    select distinct on (s.shard, r.kind, r.name)
        relay_add_to_quarantine.deployment, s.shard, r.kind, r.name,
        coalesce(
            (
                select c.cursor from relay_quarantine c
                join events e on e.category = c.name
                where r.kind = 'stream' and e.position = r.position
                    and c.deployment = relay_add_to_quarantine.deployment and c.shard = s.shard and c.kind = 'category'
            ),
            s.cursor
        ),
        r.cause, r.reason, r.position
    from jsonb_to_recordset(refused) as r (kind text, name text, cause text, reason text, position bigint)
    join unnest(shards, cursors) as s (shard, cursor) on r.kind = 'category' or s.shard = shard_of(r.name)
    order by s.shard, r.kind, r.name, r.position
    on conflict on constraint relay_quarantine_deployment_shard_kind_name_key do update set
        cause = excluded.cause, reason = excluded.reason, position = excluded.position,
        attempts = q.attempts + 1, is_retry_requested = false, tried_at = now();
    return true;
end
$$;

-- Asks the relays to retry quarantined streams or categories: one name, or all. Returns the number
-- of entries.
create function annals.relay_retry(deployment text, name text, reason text) returns bigint
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
declare
    requested bigint;
begin
    update relay_quarantine q set is_retry_requested = true
    where q.deployment = relay_retry.deployment and q.name = coalesce(relay_retry.name, q.name);
    get diagnostics requested = row_count;
    if requested > 0 then
        insert into relay_actions (deployment, verb, name, reason)
        values (
            relay_retry.deployment, case when relay_retry.name is null then 'release' else 'retry' end,
            relay_retry.name, relay_retry.reason
        );
        perform pg_notify('annals_relay', relay_retry.deployment);
    end if;
    return requested;
end
$$;

-- Skips the event that a stream is quarantined for, and asks the relays to go on behind it. False
-- if the stream is not quarantined for this event.
create function annals.relay_skip(deployment text, stream text, event_position bigint, reason text) returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    update relay_quarantine q set is_retry_requested = true
    where q.deployment = relay_skip.deployment and q.kind = 'stream' and q.name = relay_skip.stream
        and q.position = relay_skip.event_position;
    if not found then
        return false;
    end if;
    insert into relay_skipped (deployment, position, stream, version)
    select relay_skip.deployment, relay_skip.event_position, e.stream, e.version
    from (values (relay_skip.event_position)) p (position) left join events e on e.position = p.position
    on conflict do nothing;
    insert into relay_actions (deployment, verb, kind, name, position, reason)
    values (relay_skip.deployment, 'skip', 'stream', relay_skip.stream, relay_skip.event_position, relay_skip.reason);
    perform pg_notify('annals_relay', relay_skip.deployment);
    return true;
end
$$;

-- Copies of the checkpoints in Kafka, for dropping partitions of the outbox and for operators. In
-- at-least-once delivery: the checkpoints.
create table annals.relay_checkpoints (
    deployment text collate "C" not null,
    shard smallint not null,
    position bigint not null,
    checkpoint jsonb not null,
    recorded_at timestamptz not null,
    primary key (deployment, shard)
) with (fillfactor = 50);

-- Writes the checkpoints of at-least-once delivery. False, and nothing is written, if the write is
-- not admitted.
create function annals.relay_write_checkpoints(
    deployment text, session uuid, shards smallint[], epochs bigint[], write_number bigint, incarnation text, positions bigint[],
    checkpoints jsonb[]
) returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    if not relay_admit_write(relay_write_checkpoints.deployment, session, shards, epochs, write_number, relay_write_checkpoints.incarnation) then
        return false;
    end if;
    insert into relay_checkpoints as c (deployment, shard, position, checkpoint, recorded_at)
    select relay_write_checkpoints.deployment, n.shard, n.position, n.checkpoint, now()
    from unnest(shards, positions, checkpoints) as n (shard, position, checkpoint)
    on conflict on constraint relay_checkpoints_pkey do update set
        position = excluded.position, checkpoint = excluded.checkpoint, recorded_at = excluded.recorded_at;
    return true;
end
$$;

-- The phase and the wait of each relay, by its own report of every few seconds: for operators. No
-- relay decides anything by it.
create table annals.relay_reports (
    deployment text collate "C" not null,
    instance text collate "C" not null,
    report jsonb not null,
    reported_at timestamptz not null,
    primary key (deployment, instance)
) with (fillfactor = 50);

-- Reports the phase and the wait of a relay; removes old reports.
create function annals.relay_report(deployment text, instance text, report jsonb) returns void
language sql volatile
security definer
set search_path = annals, pg_temp
as $$
    delete from relay_reports r
    where r.deployment = relay_report.deployment and r.reported_at < now() - interval '1 hour'
        and r.instance <> relay_report.instance;
    insert into relay_reports (deployment, instance, report, reported_at)
    values (relay_report.deployment, relay_report.instance, relay_report.report, now())
    on conflict on constraint relay_reports_pkey do update set
        report = excluded.report, reported_at = excluded.reported_at;
$$;

-- Recorded end offsets of topics. Every record before such an offset came from an event that was
-- committed here before the row was: a database that has the row has these events, even if it has
-- lost a later part of the log. Records behind it are looked up in the store whenever the database
-- may have another history.
create table annals.relay_topic_ends (
    deployment text collate "C" not null,
    topic text collate "C" not null,
    partition int not null,
    end_offset bigint not null,
    covered_offset bigint not null,
    next_offset bigint not null,
    next_position bigint not null,
    instance text collate "C" not null,
    recorded_at timestamptz not null default now(),
    primary key (deployment, topic, partition)
) with (fillfactor = 50);

comment on column annals.relay_topic_ends.covered_offset is 'the copied checkpoints of all shards cover the records before it';
comment on column annals.relay_topic_ends.next_offset is
    'covered once the copied checkpoints of all shards begin behind next_position, the highest visible one when it was the end';
comment on column annals.relay_topic_ends.instance is 'the relay that recorded the end';

-- Whether a checkpoint covers an event: its window has begun before it, or the position inside the
-- window is behind it.
create function annals.relay_is_published(event_position bigint, xid xid8, checkpoint jsonb) returns boolean
language sql stable
as $$
    select annals.is_visible_at(
        event_position, xid, (checkpoint -> 'since' ->> 'snapshot')::pg_snapshot,
        (checkpoint -> 'since' ->> 'position')::bigint, (checkpoint -> 'since' ->> 'settled')::bigint
    ) or checkpoint -> 'until' <> 'null' and event_position <= (checkpoint ->> 'after')::bigint and annals.is_visible_at(
        event_position, xid, (checkpoint -> 'until' ->> 'snapshot')::pg_snapshot,
        (checkpoint -> 'until' ->> 'position')::bigint, (checkpoint -> 'until' ->> 'settled')::bigint
    )
$$;

-- A checkpoint at the end of the log: every visible event is published. Only while nothing can
-- append: then no running transaction has drawn a position.
create function annals.relay_checkpoint_now() returns jsonb
language sql volatile
set search_path = annals, pg_temp
as $$
    select jsonb_build_object(
        'format', 1,
        'history', jsonb_build_object(
            'store_id', i.store_id,
            'number', i.history,
            'system_identifier', i.system_identifier,
            'timeline', substring(pg_walfile_name(pg_current_wal_insert_lsn()) for 8)
        ),
        'since', jsonb_build_object(
            'snapshot', now.snapshot::text,
            'next_xid', pg_snapshot_xmax(now.snapshot)::text::bigint,
            'position', coalesce((select max(position) from events), 0),
            'event_id', (select e.event_id from events e order by e.position desc limit 1),
            'settled', i.settled
        ),
        'until', null,
        'after', 0
    )
    from identity i, (select pg_current_snapshot() as snapshot) now
$$;

-- Locks a deployment while none of its relays runs; an error if one does.
create function annals.relay_lock_stopped(deployment text) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
declare
    running text;
begin
    perform relay_lock(relay_lock_stopped.deployment);
    perform relay_expire_sessions(relay_lock_stopped.deployment, null);
    select string_agg(s.instance, ', ' order by s.instance) into running
    from relay_sessions s where s.deployment = relay_lock_stopped.deployment;
    if running is not null then
        raise exception 'relays of deployment % run: %', relay_lock_stopped.deployment, running
            using errcode = 'object_in_use', hint = 'Stop them, and start them again afterwards.';
    end if;
    if not exists (select from relay_deployments d where d.deployment = relay_lock_stopped.deployment) then
        raise exception 'there is no deployment %', relay_lock_stopped.deployment using errcode = 'no_data_found';
    end if;
end
$$;

-- Begins the next generation of a deployment from its checkpoints in this database. `known` is the
-- latest generation that Kafka has checkpoints of: a database that was restored to an earlier state
-- has forgotten later generations, and must not use their numbers again.
create function annals.relay_begin_generation(deployment text, delivery text, known int) returns void
language sql volatile
security definer
set search_path = annals, pg_temp
as $$
    update relay_deployments d
    set delivery = coalesce(relay_begin_generation.delivery, d.delivery),
        generation = greatest(d.generation, relay_begin_generation.known) + 1, forgotten_at = null
    where d.deployment = relay_begin_generation.deployment;
    delete from relay_origins o where o.deployment = relay_begin_generation.deployment;
    insert into relay_origins (deployment, shard, checkpoint)
    select c.deployment, c.shard, c.checkpoint from relay_checkpoints c where c.deployment = relay_begin_generation.deployment;
$$;

-- Changes the delivery of a deployment while none of its relays runs. After exactly-once, events
-- that were published after the last copy of the checkpoints are published again.
create function annals.relay_deliver(deployment text, delivery text, known int) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock_stopped(relay_deliver.deployment);
    perform relay_begin_generation(relay_deliver.deployment, relay_deliver.delivery, relay_deliver.known);
    insert into relay_actions (deployment, verb, name) values (relay_deliver.deployment, 'deliver', relay_deliver.delivery);
end
$$;

-- Changes the number of shards, while no relay of any deployment runs and everything is published.
-- `known` is the latest generation that Kafka has checkpoints of, of any deployment.
create function annals.relay_reshard(shards int, known int) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
set lock_timeout = '10s'
as $$
declare
    each record;
    behind record;
    origin jsonb;
begin
    if shards not between 1 and 1024 then
        raise exception '% shards are not possible: 1 to 1024 are', shards using errcode = 'invalid_parameter_value';
    end if;
    for each in select d.deployment from relay_deployments d order by d.deployment loop
        perform relay_lock_stopped(each.deployment);
    end loop;
    -- Every append locks streams before it computes shards: with this lock, none is between the
    -- two.
    lock table streams, outbox in access exclusive mode;
    select d.deployment, s.shard into behind
    from relay_deployments d
    cross join generate_series(0, shard_count() - 1) s (shard)
    left join relay_checkpoints c on c.deployment = d.deployment and c.shard = s.shard
    where d.forgotten_at is null and case
        when c.checkpoint is null then exists (select from outbox o where o.shard = s.shard)
        else exists (
            select from outbox o where o.shard = s.shard and not relay_is_published(o.position, o.xid, c.checkpoint)
        )
    end
    limit 1;
    if found then
        raise exception 'deployment % has not published everything of shard %', behind.deployment, behind.shard
            using errcode = 'object_in_use',
            hint = 'Let nothing append, run its relays until `annals-relay status` says that nothing waits, and stop them.';
    end if;
    select q.deployment, q.name into behind from relay_quarantine q order by q.entry limit 1;
    if found then
        raise exception '% is quarantined in deployment %', behind.name, behind.deployment
            using errcode = 'object_in_use', hint = 'See `annals-relay quarantine list`.';
    end if;
    execute format(
        'create or replace function shard_count() returns smallint language sql stable parallel safe as %L',
        format('select %s::smallint', shards)
    );
    origin := relay_checkpoint_now();
    -- The next owner of shard 0 has to fence the ids of all former owners.
    update relay_shards s set fence = array(
        select distinct id from relay_shards r, unnest(r.fence) as id where r.deployment = s.deployment order by id
    )
    where s.shard = 0;
    delete from relay_shards s where s.shard >= shards;
    delete from relay_checkpoints;
    insert into relay_checkpoints (deployment, shard, position, checkpoint, recorded_at)
    select d.deployment, s.shard, (origin -> 'since' ->> 'position')::bigint, origin, now()
    from relay_deployments d cross join generate_series(0, shards - 1) s (shard)
    where d.forgotten_at is null;
    perform relay_begin_generation(d.deployment, null, relay_reshard.known) from relay_deployments d where d.forgotten_at is null;
    insert into relay_actions (deployment, verb, name)
    select d.deployment, 'reshard', shards::text from relay_deployments d where d.forgotten_at is null;
end
$$;

-- Records events that a deployment's topics have as skipped, if its copied checkpoints do not cover
-- them. Returns how many were recorded.
create function annals.relay_skip_published(deployment text, published bigint[]) returns bigint
language sql volatile
security definer
set search_path = annals, pg_temp
as $$
    with recorded as (
        insert into relay_skipped (deployment, position)
        select relay_skip_published.deployment, e.position
        from unnest(relay_skip_published.published) as p (position)
        join events e on e.position = p.position
        left join relay_checkpoints c on c.deployment = relay_skip_published.deployment and c.shard = shard_of(e.stream)
        where c.checkpoint is null
            or not relay_is_published(e.position, e.xid, c.checkpoint)
            or exists (
                select from relay_quarantine q
                where q.deployment = relay_skip_published.deployment and q.shard = c.shard and q.name in (e.stream, e.category)
            )
        on conflict do nothing
        returning 1
    )
    select count(*) from recorded
$$;

-- Records the end offsets of topics; never moves one back. `covered` has the same offsets if a
-- rebase skips every event before them, or nulls. Records nothing if the database is not the one
-- that the caller read from.
--
-- An end offset is read before it is recorded: the events before it were visible then. A checkpoint
-- that begins at a later bound covers them, and a bound whose position is above the highest that
-- was visible then is a later one: also if another relay wrote the records, and if it did not learn
-- that they were committed.
create function annals.relay_record_ends(
    deployment text, instance text, incarnation text, topics text[], partitions int[], ends bigint[], covered bigint[]
) returns void
language sql volatile
security definer
set search_path = annals, pg_temp
as $$
    with copied as (
        select min((c.checkpoint -> 'since' ->> 'position')::bigint) as position
        from relay_checkpoints c
        where c.deployment = relay_record_ends.deployment
        having count(*) >= shard_count()
    )
    insert into relay_topic_ends as t (
        deployment, topic, partition, end_offset, covered_offset, next_offset, next_position, instance, recorded_at
    )
    select
        relay_record_ends.deployment, n.topic, n.partition, n.end_offset, coalesce(n.covered_offset, 0), n.end_offset, visible.position,
        relay_record_ends.instance, now()
    from unnest(
        relay_record_ends.topics, relay_record_ends.partitions, relay_record_ends.ends, relay_record_ends.covered
    ) as n (topic, partition, end_offset, covered_offset),
        (select coalesce(max(e.position), 0) as position from events e) visible
    where relay_record_ends.incarnation = incarnation()
    -- In one order for all, so that no two can deadlock.
    order by n.topic, n.partition
    on conflict on constraint relay_topic_ends_pkey do update set
        (end_offset, covered_offset, next_offset, next_position, instance, recorded_at) = (
            select
                excluded.end_offset,
                case when is_covered then t.next_offset else t.covered_offset end,
                case when is_covered then excluded.next_offset else t.next_offset end,
                case when is_covered then excluded.next_position else t.next_position end,
                excluded.instance, excluded.recorded_at
            from (select coalesce(t.next_position < (select c.position from copied c), false) as is_covered) i
        )
    where t.end_offset < excluded.end_offset
$$;

-- Begins a new generation after the database has lost a part of its history, or Kafka the
-- checkpoints: from the copied checkpoints in this history. Events that the topics have beyond them
-- are recorded as skipped before (`relay_skip_published`).
create function annals.relay_rebase(deployment text, reason text, known int) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
declare
    history constant jsonb := relay_checkpoint_now() -> 'history';
begin
    perform relay_lock_stopped(relay_rebase.deployment);
    update relay_checkpoints c set checkpoint = jsonb_set(c.checkpoint, '{history}', history)
    where c.deployment = relay_rebase.deployment;
    perform relay_begin_generation(relay_rebase.deployment, null, relay_rebase.known);
    delete from relay_topic_ends t where t.deployment = relay_rebase.deployment;
    insert into relay_actions (deployment, verb, reason) values (relay_rebase.deployment, 'rebase', relay_rebase.reason);
end
$$;

-- Records that the topics of a publication are released, while none of its relays runs here. A
-- publication of another store has none here.
create function annals.relay_release_topics(publication text, reason text) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    if exists (select from relay_deployments d where d.deployment = relay_release_topics.publication) then
        perform relay_lock_stopped(relay_release_topics.publication);
    end if;
    insert into relay_actions (deployment, verb, reason)
    values (relay_release_topics.publication, 'release-topics', relay_release_topics.reason);
end
$$;

-- Partition counts of topics when they were first published to: the partition of a stream, and so
-- its order, depends on them.
create table annals.relay_topics (
    topic text collate "C" primary key,
    partitions int not null,
    recorded_at timestamptz not null default now()
);

-- Deleting a row is how an operator lets a topic go on that has lost its records or its partitions:
-- its earlier records are not expected of it any more.
create function annals.topic_forgotten() returns trigger
language plpgsql
security definer
set search_path = annals, pg_temp
as $$
begin
    delete from relay_topic_ends e where e.topic = old.topic;
    return old;
end
$$;

create trigger forgotten after delete on annals.relay_topics
for each row execute function annals.topic_forgotten();

-- Registry ids of schemas, so that known schemas need no registry.
create table annals.relay_schema_ids (
    subject text collate "C" not null,
    fingerprint bigint not null,
    id bigint not null,
    recorded_at timestamptz not null default now(),
    primary key (subject, fingerprint)
);

-- Replays: events of the past that are published again, by operators. The progress is in Kafka, in
-- the transactions of the records; `events` and `part` are copies of it for people.
create table annals.relay_replays (
    replay bigint generated always as identity primary key,
    deployment text collate "C" not null,
    plan jsonb not null,
    reason text not null check (length(btrim(reason)) > 0),
    state text not null default 'unfinished' check (state in ('unfinished', 'finished', 'abandoned')),
    session uuid,
    expires_at timestamptz not null default '-infinity',
    events bigint not null default 0,
    done_by text not null default session_user,
    begun_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz
);
create unique index relay_replays_unfinished on annals.relay_replays (deployment) where state = 'unfinished';

comment on column annals.relay_replays.plan is 'which events, to which topic, and the checkpoints that cover them: fixed at the begin';
comment on column annals.relay_replays.session is 'the process that replays, until expires_at; a process that is taken for dead is fenced in Kafka';

-- Begins a replay, or with a null plan resumes the unfinished one of a deployment, for a process
-- with a lease. One row: `outcome` is `begun`, `resumed`, `unfinished` (another one is not
-- finished: resume or abandon it), `running` (its process lives: the lease ends after `left_ms`) or
-- `none`.
create function annals.relay_begin_replay(
    deployment text, new_plan jsonb, new_reason text, new_session uuid, lease interval,
    out outcome text, out replay bigint, out plan jsonb, out reason text, out left_ms bigint
)
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
declare
    known relay_replays;
begin
    perform relay_lock(relay_begin_replay.deployment);
    select * into known from relay_replays r where r.deployment = relay_begin_replay.deployment and r.state = 'unfinished';
    if found then
        replay := known.replay;
        plan := known.plan;
        reason := known.reason;
        -- The clock may have been set back since: a lease lasts no longer than its length from now.
        if known.expires_at > clock_timestamp() + lease then
            known.expires_at := clock_timestamp() + lease;
            update relay_replays r set expires_at = known.expires_at where r.replay = known.replay;
        end if;
        left_ms := greatest(0, ceil(extract(epoch from known.expires_at - clock_timestamp()) * 1000))::bigint;
        if known.expires_at > clock_timestamp() and known.session <> new_session then
            outcome := 'running';
        elsif new_plan is not null then
            outcome := 'unfinished';
        else
            outcome := 'resumed';
            update relay_replays r set session = new_session, expires_at = clock_timestamp() + lease where r.replay = known.replay;
        end if;
        return;
    end if;
    if new_plan is null then
        outcome := 'none';
        return;
    end if;
    outcome := 'begun';
    plan := new_plan;
    reason := new_reason;
    insert into relay_replays as r (deployment, plan, reason, session, expires_at)
    values (relay_begin_replay.deployment, new_plan, new_reason, new_session, clock_timestamp() + lease)
    returning r.replay into replay;
    insert into relay_actions (deployment, verb, name, reason)
    values (relay_begin_replay.deployment, 'replay', replay::text, new_reason);
end
$$;

-- Renews the lease of a replay's process, and copies its progress. False: another process has it,
-- or it has ended.
create function annals.relay_renew_replay(replay bigint, session uuid, lease interval, events bigint) returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    update relay_replays r
    set expires_at = clock_timestamp() + lease, events = greatest(r.events, relay_renew_replay.events)
    where r.replay = relay_renew_replay.replay and r.session = relay_renew_replay.session and r.state = 'unfinished';
    return found;
end
$$;

-- Ends a replay: finished, or abandoned. False: it has ended already, or its process lives.
create function annals.relay_end_replay(replay bigint, session uuid, state text, events bigint) returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    update relay_replays r
    set state = relay_end_replay.state, events = greatest(r.events, relay_end_replay.events), ended_at = clock_timestamp(),
        expires_at = '-infinity'
    where r.replay = relay_end_replay.replay and r.state = 'unfinished'
        and (r.session = relay_end_replay.session or r.expires_at <= clock_timestamp());
    if found then
        insert into relay_actions (deployment, verb, name)
        select r.deployment, 'replay ' || relay_end_replay.state, r.replay::text
        from relay_replays r where r.replay = relay_end_replay.replay;
        return true;
    end if;
    return false;
end
$$;

-- How far audits proved that every event is published, skipped or removed: one row each deployment.
-- The next audit can begin there.
create table annals.relay_audits (
    deployment text collate "C" primary key,
    store_id uuid not null,
    history int not null,
    proven bigint not null,
    partitions jsonb not null,
    audited_at timestamptz not null default clock_timestamp()
);
comment on table annals.relay_audits is 'every event up to proven is accounted for in the topics; partitions: where the next audit reads on';

-- Records an audit without findings, and returns the position up to which it proves. Positions that
-- were drawn before the audit began can still appear while a transaction of that time runs: then
-- the earlier proof stays.
create function annals.relay_record_audit(deployment text, proven bigint, partitions jsonb, next_xid bigint) returns bigint
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    if pg_snapshot_xmin(pg_current_snapshot())::text::bigint >= relay_record_audit.next_xid then
        insert into relay_audits as a (deployment, store_id, history, proven, partitions)
        select relay_record_audit.deployment, i.store_id, i.history, relay_record_audit.proven, relay_record_audit.partitions
        from identity i where i.is_only
        on conflict on constraint relay_audits_pkey do update set
            store_id = excluded.store_id, history = excluded.history, proven = excluded.proven,
            partitions = excluded.partitions, audited_at = excluded.audited_at;
        return relay_record_audit.proven;
    end if;
    return coalesce(
        (
            select a.proven from relay_audits a join identity i on i.is_only and i.store_id = a.store_id and i.history = a.history
            where a.deployment = relay_record_audit.deployment
        ),
        0
    );
end
$$;

-- Lets go of a deployment that has ended for good, while none of its relays runs: its checkpoints
-- keep partitions of the outbox from being dropped. Its row stays, with the next generation: under
-- this name no relay starts again from an old checkpoint in Kafka, unless a rebase has read what
-- its topics have. One row: how much was removed.
create function annals.relay_forget(deployment text, reason text, out checkpoints bigint, out entries bigint, out skipped bigint)
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    if length(btrim(coalesce(relay_forget.reason, ''))) = 0 then
        raise exception 'say why the deployment is forgotten: the reason must not be empty' using errcode = 'invalid_parameter_value';
    end if;
    insert into relay_deployments (deployment, delivery)
    select relay_forget.deployment, 'exactly-once'
    where exists (select from relay_checkpoints c where c.deployment = relay_forget.deployment)
    on conflict on constraint relay_deployments_pkey do nothing;
    perform relay_lock_stopped(relay_forget.deployment);
    delete from relay_checkpoints c where c.deployment = relay_forget.deployment;
    get diagnostics checkpoints = row_count;
    delete from relay_quarantine q where q.deployment = relay_forget.deployment;
    get diagnostics entries = row_count;
    delete from relay_skipped s where s.deployment = relay_forget.deployment;
    get diagnostics skipped = row_count;
    delete from relay_origins o where o.deployment = relay_forget.deployment;
    delete from relay_topic_ends t where t.deployment = relay_forget.deployment;
    delete from relay_reports r where r.deployment = relay_forget.deployment;
    delete from relay_audits a where a.deployment = relay_forget.deployment;
    update relay_deployments d set generation = d.generation + 1, forgotten_at = clock_timestamp()
    where d.deployment = relay_forget.deployment;
    insert into relay_actions (deployment, verb, reason) values (relay_forget.deployment, 'forget', relay_forget.reason);
end
$$;

-- The lowest partition of the outbox, if every deployment has published all of it: the checkpoint
-- of each shard is behind it, and its snapshot includes every transaction that wrote to it. No row:
-- it is not published yet.
create function annals.outbox_published(
    out partition name, out lower bigint, out upper bigint, out xid_min xid8, out xid_max xid8
)
returns setof record
language plpgsql stable
set search_path = annals, pg_temp
as $$
declare
    size constant bigint := outbox_partition_positions();
    is_unseen boolean;
begin
    select o.relname, o.number * size, (o.number + 1) * size into partition, lower, upper
    from (
        select c.relname, substring(c.relname from 'outbox_([0-9]+)$')::bigint as number
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'outbox'::regclass
    ) o
    order by o.number
    limit 1;
    -- A deployment has published nothing of a shard without a checkpoint.
    if not exists (select from relay_checkpoints)
        or exists (select from relay_checkpoints c group by c.deployment having count(*) < shard_count())
        or exists (select from relay_checkpoints c where c.position < upper)
    then
        return;
    end if;
    -- Inside a window, the events that its end includes are published up to the cursor's position,
    -- which is behind the partition. A transaction that a snapshot does not include is in its xip,
    -- or not below its xmax: the index finds both.
    execute format(
        'select
            (select o.xid from %1$I o order by o.xid limit 1),
            (select o.xid from %1$I o order by o.xid desc limit 1),
            exists (
                select from (
                    select distinct
                        (b.bound ->> ''snapshot'')::text as text, coalesce((b.bound ->> ''settled'')::bigint, 0) as settled
                    from relay_checkpoints c,
                        lateral (select coalesce(nullif(c.checkpoint -> ''until'', ''null''), c.checkpoint -> ''since'') as bound) b
                ) s
                where exists (
                    select from %1$I o
                    where (
                        o.xid >= pg_snapshot_xmax(s.text::pg_snapshot)
                        or o.xid = any (array(select pg_snapshot_xip(s.text::pg_snapshot)))
                    ) and o.position > s.settled
                )
            )',
        partition
    ) into xid_min, xid_max, is_unseen;
    if is_unseen then
        return;
    end if;
    -- A partition whose positions were all rolled back has no transaction.
    xid_min := coalesce(xid_min, '0');
    xid_max := coalesce(xid_max, '0');
    return next;
end
$$;

-- Drops the lowest partition of the outbox if it is published; returns how many were dropped, 0 or
-- 1.
--
-- Dropping needs an exclusive lock on the outbox, and appends queue behind it. So it gives up at
-- once if a long transaction, such as a backup, has the partition open, and after 20 ms if appends
-- are slow to end.
create function annals.outbox_drop_published() returns bigint
language plpgsql
security definer
set search_path = annals, pg_temp
set lock_timeout = '20ms'
as $$
declare
    published record;
begin
    select * into published from outbox_published();
    if not found then
        return 0;
    end if;
    begin
        execute format('lock table %I in access exclusive mode nowait', published.partition);
        -- Only a test: the lock order is the outbox first, then its partition.
        raise exception using errcode = 'no_data_found';
    exception
        when no_data_found then
            null;
        when lock_not_available then
            return 0;
    end;
    begin
        lock table only outbox in access exclusive mode;
        execute format('lock table %I in access exclusive mode', published.partition);
    exception
        when lock_not_available or undefined_table then
            return 0;
    end;
    -- Another session may have dropped it, or appended to it, meanwhile.
    if published is distinct from (select p from outbox_published() p) then
        return 0;
    end if;
    execute format('drop table %I', published.partition);
    insert into outbox_dropped (lower, upper, xid_min, xid_max, snapshot, settled)
    select published.lower, published.upper, published.xid_min, published.xid_max, pg_current_snapshot(), i.settled
    from identity i;
    return 1;
end
$$;

-- Adopts the store in its present cluster, after a dump and restore, a logical copy or an upgrade:
-- every event in it counts as visible, with any transaction id. With `is_copy` it becomes a
-- store of its own, without the state of the first one's relays. Logged. Refused in the store's own
-- cluster, unless it is to become a copy.
create function annals.adopt(
    reason text, is_copy boolean default false, out store_id uuid, out history int, out system_identifier text, out settled bigint
)
language plpgsql volatile
security definer
set search_path = annals, pg_temp
set lock_timeout = '10s'
as $$
#variable_conflict use_column
declare
    here constant text := (select c.system_identifier::text from pg_control_system() c);
    kept text;
begin
    if length(btrim(coalesce(adopt.reason, ''))) = 0 then
        raise exception 'say why the store is adopted: the reason must not be empty' using errcode = 'invalid_parameter_value';
    end if;
    -- An append locks its streams before it draws positions: after this lock, no position below the
    -- limit can still become visible.
    lock table streams, identity in exclusive mode;
    if not adopt.is_copy and (select i.system_identifier from identity i) = here then
        raise exception 'the store is in its own cluster, %: there is nothing to adopt', here
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'A copy that is to be a store of its own is adopted as a copy.';
    end if;
    -- A logical copy does not include the sequence's value.
    perform setval('positions', greatest(
        (select p.last_value from positions p), (select coalesce(max(e.position), 1) from events e)
    ), (select p.is_called from positions p) or exists (select from events));
    update identity i set
        store_id = case when adopt.is_copy then gen_random_uuid() else i.store_id end,
        system_identifier = here,
        settled = greatest(i.settled, (select coalesce(max(e.position), 0) from events e)),
        history = i.history + 1
    returning i.store_id, i.history, i.system_identifier, i.settled into store_id, history, system_identifier, settled;
    insert into adoptions (history, store_id, system_identifier, settled, is_copy, reason)
    values (adopt.history, adopt.store_id, here, adopt.settled, adopt.is_copy, adopt.reason);
    if adopt.is_copy then
        for kept in
            select c.oid::regclass from pg_class c
            where c.relnamespace = 'annals'::regnamespace and c.relkind = 'r' and starts_with(c.relname, 'relay_')
        loop
            execute format('delete from %s', kept);
        end loop;
    end if;
    perform outbox_extend(4 * outbox_partition_positions());
end
$$;
