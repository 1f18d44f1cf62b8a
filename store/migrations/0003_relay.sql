-- What the relay keeps here: few rows, updated in place. The relay's own statements use them.

-- Relays that are alive: one row for each session, which lasts from a start, or from the loss of a lease, to the
-- next. Times are the database's.
create table annals.relay_sessions (
    session uuid primary key,
    deployment text collate "C" not null,
    instance text not null,
    transactional_ids text[] not null,
    process jsonb not null,
    is_ready boolean not null default false,
    joined_at timestamptz not null,
    seen_at timestamptz not null,
    expires_at timestamptz not null
) with (fillfactor = 50);

comment on column annals.relay_sessions.transactional_ids is 'they stand here before anything is published under them';
comment on column annals.relay_sessions.process is
    'which process it is: an id of its own, and where it runs, so that another one there can tell whether it is gone';
comment on column annals.relay_sessions.is_ready is 'has producers and reaches Kafka, as it said last: counts where shards are shared out';

-- In all that follows a deployment stands under the name of its publication: its own, and behind an @ what its topics begin
-- with, if anything: `annals`, `annals@staging.`.

-- What a deployment is. A new generation begins from `relay_origins`, and knows nothing of what earlier ones wrote to Kafka.
create table annals.relay_deployments (
    deployment text collate "C" primary key,
    delivery text not null check (delivery in ('exactly-once', 'at-least-once')),
    generation int not null default 1,
    begun_at timestamptz not null default now()
);

-- From where a generation goes on, a checkpoint for each shard; none in the first: that begins with the first event.
create table annals.relay_origins (
    deployment text collate "C" not null,
    shard smallint not null,
    checkpoint jsonb not null,
    primary key (deployment, shard)
);

-- Who publishes which shard. The epoch only grows: with each taking, and with each loss.
create table annals.relay_shards (
    deployment text collate "C" not null,
    shard smallint not null,
    owner uuid,
    epoch bigint not null default 0,
    fence text[] not null default '{}',
    step bigint not null default 0,
    taken_at timestamptz,
    primary key (deployment, shard)
) with (fillfactor = 50);

comment on column annals.relay_shards.fence is
    'transactional ids of earlier owners that may still have a transaction open: fenced before the shard is published';
comment on column annals.relay_shards.step is
    'the number of what its owner did last about what is held: what has an earlier one comes too late';

-- One change of a deployment's leases at a time. Each is one statement, so nobody waits for a client.
create function annals.relay_lock(deployment text) returns void
language sql volatile
security definer
set search_path = annals, pg_temp
as $$ select pg_advisory_xact_lock(hashtextextended('annals relay ' || relay_lock.deployment, 0)) $$;

-- Ends sessions: those whose time is over, and those that are named. Their shards are free; whoever takes one has to fence
-- their transactional ids.
create function annals.relay_expire(deployment text, gone uuid[]) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
declare
    over record;
begin
    for over in
        delete from relay_sessions s
        where s.deployment = relay_expire.deployment
            and (s.expires_at <= clock_timestamp() or s.session = any (relay_expire.gone))
        returning s.session, s.transactional_ids
    loop
        update relay_shards s
        set owner = null, epoch = s.epoch + 1, fence = s.fence || over.transactional_ids
        where s.deployment = relay_expire.deployment and s.owner = over.session;
        perform pg_notify('annals_relay', relay_expire.deployment);
    end loop;
end
$$;

-- What a deployment is; it begins with the first relay that asks.
create function annals.relay_begin(deployment text, configured text)
returns table (delivery text, generation int, shards smallint)
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    insert into relay_deployments (deployment, delivery) values (relay_begin.deployment, relay_begin.configured)
    on conflict on constraint relay_deployments_pkey do nothing;
    return query
    select d.delivery, d.generation, shard_count() from relay_deployments d where d.deployment = relay_begin.deployment;
end
$$;

-- Begins a session. There is one of an instance at a time: an earlier one of the same process is ended, and so is `gone`, whose
-- process the caller knows to have ended. While another one lives nothing is begun, and the row says which: two processes
-- with one name would else end each other's sessions for ever. One row: `joined`; `begun anew` if the deployment has another
-- generation by now; `taken`, with the session that lives.
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
    perform relay_expire(relay_join.deployment, array(
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
    insert into relay_sessions (session, deployment, instance, transactional_ids, process, joined_at, seen_at, expires_at)
    values (
        relay_join.session, relay_join.deployment, relay_join.instance, relay_join.transactional_ids, relay_join.process,
        clock_timestamp(), clock_timestamp(), clock_timestamp() + relay_join.lease
    );
    outcome := 'joined';
end
$$;

-- Prolongs a session's lease, ends those that are over, and reads all: a row for each shard, with how many
-- sessions are ready, this one included, and how many of them joined before it. No row: there is no such session.
create function annals.relay_look(deployment text, session uuid, is_ready boolean, lease interval)
returns table (shard smallint, epoch bigint, is_mine boolean, is_free boolean, members bigint, rank bigint)
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock(relay_look.deployment);
    -- Its own first: a lease that nobody has ended yet can be prolonged, however late.
    update relay_sessions s
    set seen_at = clock_timestamp(), expires_at = clock_timestamp() + relay_look.lease, is_ready = relay_look.is_ready
    where s.session = relay_look.session;
    if not found then
        return;
    end if;
    perform relay_expire(relay_look.deployment, null);
    return query
    with ready as (
        select s.session, s.joined_at from relay_sessions s
        where s.deployment = relay_look.deployment and (s.is_ready or s.session = relay_look.session)
    ),
    me as (select r.joined_at from ready r where r.session = relay_look.session)
    select
        s.shard, s.epoch, s.owner is not distinct from relay_look.session, s.owner is null,
        (select count(*) from ready),
        (select count(*) from ready r, me where (r.joined_at, r.session) < (me.joined_at, relay_look.session))
    from relay_shards s where s.deployment = relay_look.deployment order by s.shard;
end
$$;

-- Takes those of the shards that are free, for a session that is alive: a row for each, with its new epoch.
create function annals.relay_take(deployment text, session uuid, shards smallint[])
returns table (shard smallint, epoch bigint)
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock(relay_take.deployment);
    return query
    update relay_shards s
    set owner = relay_take.session, epoch = s.epoch + 1, step = 0, taken_at = clock_timestamp()
    where s.deployment = relay_take.deployment and s.shard = any (shards) and s.owner is null
        and exists (select from relay_sessions r where r.session = relay_take.session)
    returning s.shard, s.epoch;
end
$$;

-- Gives shards back of which everything published is committed; those that are owned in this epoch still.
create function annals.relay_release(deployment text, session uuid, shards smallint[], epochs bigint[]) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock(relay_release.deployment);
    update relay_shards s set owner = null
    from unnest(shards, epochs) as given (shard, epoch)
    where s.deployment = relay_release.deployment and s.shard = given.shard and s.epoch = given.epoch
        and s.owner = relay_release.session;
    perform pg_notify('annals_relay', relay_release.deployment);
end
$$;

-- Ends a session. Unless it is clean, whoever takes its shards has to fence it.
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
        perform relay_expire(relay_leave.deployment, null);
    end if;
end
$$;

-- What is to be fenced before these leases are published. Null if one of them is no longer the session's: what stood
-- there may be for its next owner to fence, and finding nothing would mean nothing.
create function annals.relay_to_fence(deployment text, session uuid, shards smallint[], epochs bigint[]) returns text[]
language sql stable
security definer
set search_path = annals, pg_temp
as $$
    with owned as (
        select s.fence from relay_shards s
        join unnest(relay_to_fence.shards, relay_to_fence.epochs) as given (shard, epoch)
            on s.shard = given.shard and s.epoch = given.epoch
        where s.deployment = relay_to_fence.deployment and s.owner = relay_to_fence.session
    )
    select array(select distinct id from owned, unnest(owned.fence) as id order by id)
    where (select count(*) from owned) = cardinality(relay_to_fence.shards)
$$;

-- These transactional ids are fenced: the leases' shards need not remember them, where they are owned still.
create function annals.relay_fenced(
    deployment text, session uuid, shards smallint[], epochs bigint[], transactional_ids text[]
) returns void
language sql volatile
security definer
set search_path = annals, pg_temp
as $$
    update relay_shards s
    set fence = array(select id from unnest(s.fence) as id where id <> all (relay_fenced.transactional_ids))
    from unnest(relay_fenced.shards, relay_fenced.epochs) as given (shard, epoch)
    where s.deployment = relay_fenced.deployment and s.shard = given.shard and s.epoch = given.epoch
        and s.owner = relay_fenced.session
$$;

-- Streams and categories that are held: something of theirs cannot be published, and what follows waits behind it,
-- while everything else is published. Each goes on from a place of its own. How far that got stands in Kafka first, in
-- the shard's checkpoint, and here once that is committed.
create table annals.relay_holds (
    hold bigint generated always as identity primary key,
    deployment text collate "C" not null,
    shard smallint not null,
    kind text collate "C" not null check (kind in ('stream', 'category')),
    name text collate "C" not null,
    place jsonb not null,
    cause text not null,
    reason text not null,
    position bigint,
    attempts int not null default 1,
    is_wanted boolean not null default false,
    held_at timestamptz not null default now(),
    tried_at timestamptz not null default now(),
    unique (deployment, shard, kind, name)
);

comment on column annals.relay_holds.place is 'everything of its own before this place in the log is published';
comment on column annals.relay_holds.position is 'of the event that cannot be published; null for a category';
comment on column annals.relay_holds.is_wanted is 'somebody asked to try again';

-- Events that a deployment does not publish: skipped by a person, or published in a history that was lost.
create table annals.relay_passed (
    deployment text collate "C" not null,
    position bigint not null,
    primary key (deployment, position)
);

-- What people did about what is held.
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

-- Whether this is to be done about what is held in these shards: all of the leases are the session's, and nothing with a
-- later number was done under them. A statement that a relay gave up, or that it began before it lost its producers, may
-- be executed at any time after. And the database is the one whose places these are: a place of a history that was lost means
-- something else in the one that goes on.
create function annals.relay_step(
    deployment text, session uuid, shards smallint[], epochs bigint[], step bigint, incarnation text
)
returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock(relay_step.deployment);
    if relay_step.incarnation <> incarnation() then
        return false;
    end if;
    if cardinality(relay_step.shards) <> (
        select count(*) from relay_shards s
        join unnest(relay_step.shards, relay_step.epochs) as given (shard, epoch)
            on s.shard = given.shard and s.epoch = given.epoch
        where s.deployment = relay_step.deployment and s.owner = relay_step.session and s.step <= relay_step.step
    ) then
        return false;
    end if;
    update relay_shards s set step = relay_step.step
    where s.deployment = relay_step.deployment and s.shard = any (relay_step.shards);
    return true;
end
$$;

-- Notes how far holds got by checkpoints that are committed; one without a place has ended. False, and nothing is noted, if
-- one of the leases is no longer the session's, or it comes too late: somebody may have got further.
create function annals.relay_holds_went_on(
    deployment text, session uuid, shards smallint[], epochs bigint[], step bigint, incarnation text, holds bigint[],
    places jsonb[]
) returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    if not relay_step(relay_holds_went_on.deployment, session, shards, epochs, step, relay_holds_went_on.incarnation) then
        return false;
    end if;
    delete from relay_holds h
    using unnest(holds, places) as gone (hold, place)
    where h.hold = gone.hold and gone.place is null
        and h.deployment = relay_holds_went_on.deployment and h.shard = any (shards);
    update relay_holds h set place = went.place
    from unnest(holds, places) as went (hold, place)
    where h.hold = went.hold and went.place is not null
        and h.deployment = relay_holds_went_on.deployment and h.shard = any (shards);
    return true;
end
$$;

-- Holds what was refused: `[{"kind", "name", "cause", "reason", "position"}]`. A category is held in all of these shards, a
-- stream in its own, if it is among them. `places` says where the shards stand in Kafka: a hold begins there, or where its
-- category is held. What is held already stays where it is. False if one of the leases is lost, or it comes too late.
create function annals.relay_hold(
    deployment text, session uuid, shards smallint[], epochs bigint[], step bigint, incarnation text, places jsonb[],
    refused jsonb
) returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    if not relay_step(relay_hold.deployment, session, shards, epochs, step, relay_hold.incarnation) then
        return false;
    end if;
    insert into relay_holds as h (deployment, shard, kind, name, place, cause, reason, position)
    select distinct on (s.shard, r.kind, r.name)
        relay_hold.deployment, s.shard, r.kind, r.name,
        coalesce(
            (
                select c.place from relay_holds c
                join events e on e.category = c.name
                where r.kind = 'stream' and e.position = r.position
                    and c.deployment = relay_hold.deployment and c.shard = s.shard and c.kind = 'category'
            ),
            s.place
        ),
        r.cause, r.reason, r.position
    from jsonb_to_recordset(refused) as r (kind text, name text, cause text, reason text, position bigint)
    join unnest(shards, places) as s (shard, place) on r.kind = 'category' or s.shard = shard_of(r.name)
    order by s.shard, r.kind, r.name, r.position
    on conflict on constraint relay_holds_deployment_shard_kind_name_key do update set
        cause = excluded.cause, reason = excluded.reason, position = excluded.position,
        attempts = h.attempts + 1, is_wanted = false, tried_at = now();
    return true;
end
$$;

-- Asks the relays to try again what is held: one name, or everything. Returns how many holds that is.
create function annals.relay_retry(deployment text, name text, reason text) returns bigint
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
declare
    wanted bigint;
begin
    update relay_holds h set is_wanted = true
    where h.deployment = relay_retry.deployment and h.name = coalesce(relay_retry.name, h.name);
    get diagnostics wanted = row_count;
    if wanted > 0 then
        insert into relay_actions (deployment, verb, name, reason)
        values (
            relay_retry.deployment, case when relay_retry.name is null then 'release' else 'retry' end,
            relay_retry.name, relay_retry.reason
        );
        perform pg_notify('annals_relay', relay_retry.deployment);
    end if;
    return wanted;
end
$$;

-- Passes over the event that holds a stream, and asks the relays to go on behind it. False if it is not this event that
-- holds the stream.
create function annals.relay_skip(deployment text, stream text, event_position bigint, reason text) returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    update relay_holds h set is_wanted = true
    where h.deployment = relay_skip.deployment and h.kind = 'stream' and h.name = relay_skip.stream
        and h.position = relay_skip.event_position;
    if not found then
        return false;
    end if;
    insert into relay_passed (deployment, position) values (relay_skip.deployment, relay_skip.event_position)
    on conflict do nothing;
    insert into relay_actions (deployment, verb, kind, name, position, reason)
    values (relay_skip.deployment, 'skip', 'stream', relay_skip.stream, relay_skip.event_position, relay_skip.reason);
    perform pg_notify('annals_relay', relay_skip.deployment);
    return true;
end
$$;

-- Copies of the checkpoints that stand in Kafka, for clean-up and for people.
create table annals.relay_checkpoints (
    deployment text collate "C" not null,
    shard smallint not null,
    position bigint not null,
    checkpoint jsonb not null,
    recorded_at timestamptz not null,
    primary key (deployment, shard)
) with (fillfactor = 50);

-- Writes checkpoints where PostgreSQL is where they stand: at least once. False, and nothing is written, if one of the leases is
-- no longer the session's, or it comes too late.
create function annals.relay_checkpoint(
    deployment text, session uuid, shards smallint[], epochs bigint[], step bigint, incarnation text, positions bigint[],
    checkpoints jsonb[]
) returns boolean
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    if not relay_step(relay_checkpoint.deployment, session, shards, epochs, step, relay_checkpoint.incarnation) then
        return false;
    end if;
    insert into relay_checkpoints as c (deployment, shard, position, checkpoint, recorded_at)
    select relay_checkpoint.deployment, n.shard, n.position, n.checkpoint, now()
    from unnest(shards, positions, checkpoints) as n (shard, position, checkpoint)
    on conflict on constraint relay_checkpoints_pkey do update set
        position = excluded.position, checkpoint = excluded.checkpoint, recorded_at = excluded.recorded_at;
    return true;
end
$$;

-- How far each topic was written when a relay last said so. Everything before it came from events that were committed here
-- before: so where this row is, these events are, whatever part of the log was lost behind it. What the topics have beyond
-- is looked up in the store whenever the database may have another history.
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

comment on column annals.relay_topic_ends.covered_offset is 'what is written before it is covered by the copies of all checkpoints';
comment on column annals.relay_topic_ends.next_offset is
    'is covered once the copies of all checkpoints begin behind next_position, the highest that was visible when it was the end';
comment on column annals.relay_topic_ends.instance is 'the relay that recorded the end';

-- The bounds in a checkpoint say what of an event is published: up to the end of the window inside it, otherwise to its begin.
create function annals.relay_is_published(event_position bigint, xid xid8, checkpoint jsonb) returns boolean
language sql stable
as $$
    select annals.is_seen(
        event_position, xid, (checkpoint -> 'since' ->> 'snapshot')::pg_snapshot,
        (checkpoint -> 'since' ->> 'position')::bigint, (checkpoint -> 'since' ->> 'settled')::bigint
    ) or checkpoint -> 'until' <> 'null' and event_position <= (checkpoint ->> 'after')::bigint and annals.is_seen(
        event_position, xid, (checkpoint -> 'until' ->> 'snapshot')::pg_snapshot,
        (checkpoint -> 'until' ->> 'position')::bigint, (checkpoint -> 'until' ->> 'settled')::bigint
    )
$$;

-- Where the log stands now, as a checkpoint: everything that is visible is published. Only while nothing can append: then no
-- transaction that runs has drawn a position.
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

-- Locks a deployment of which no relay runs; an error if one does.
create function annals.relay_lock_stopped(deployment text) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
declare
    running text;
begin
    perform relay_lock(relay_lock_stopped.deployment);
    perform relay_expire(relay_lock_stopped.deployment, null);
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

-- Begins the next generation of a deployment from its checkpoints as they stand here.
create function annals.relay_begin_again(deployment text, delivery text) returns void
language sql volatile
security definer
set search_path = annals, pg_temp
as $$
    update relay_deployments d set delivery = coalesce(relay_begin_again.delivery, d.delivery), generation = d.generation + 1
    where d.deployment = relay_begin_again.deployment;
    delete from relay_origins o where o.deployment = relay_begin_again.deployment;
    insert into relay_origins (deployment, shard, checkpoint)
    select c.deployment, c.shard, c.checkpoint from relay_checkpoints c where c.deployment = relay_begin_again.deployment;
$$;

-- Changes what consumers of a deployment are promised, while none of its relays runs. From exactly once, what was published
-- after the last copy of the checkpoints comes again.
create function annals.relay_deliver(deployment text, delivery text) returns void
language plpgsql volatile
security definer
set search_path = annals, pg_temp
as $$
begin
    perform relay_lock_stopped(relay_deliver.deployment);
    perform relay_begin_again(relay_deliver.deployment, relay_deliver.delivery);
    insert into relay_actions (deployment, verb, name) values (relay_deliver.deployment, 'deliver', relay_deliver.delivery);
end
$$;

-- Changes the number of shards, while no relay of any deployment runs and everything is published.
create function annals.relay_reshard(shards int) returns void
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
    -- Every append touches streams before it works shards out: none is between the two now.
    lock table streams, outbox in access exclusive mode;
    select d.deployment, s.shard into behind
    from relay_deployments d
    cross join generate_series(0, shard_count() - 1) s (shard)
    left join relay_checkpoints c on c.deployment = d.deployment and c.shard = s.shard
    where case
        when c.checkpoint is null then exists (select from outbox o where o.shard = s.shard)
        else c.checkpoint -> 'until' <> 'null' or exists (
            select from outbox o where o.shard = s.shard and not relay_is_published(o.position, o.xid, c.checkpoint)
        )
    end
    limit 1;
    if found then
        raise exception 'deployment % has not published everything of shard %', behind.deployment, behind.shard
            using errcode = 'object_in_use',
            hint = 'Let nothing append, run its relays until `annals-relay status` says that nothing waits, and stop them.';
    end if;
    select h.deployment, h.name into behind from relay_holds h order by h.hold limit 1;
    if found then
        raise exception '% is held in deployment %', behind.name, behind.deployment
            using errcode = 'object_in_use', hint = 'See `annals-relay quarantine list`.';
    end if;
    execute format(
        'create or replace function shard_count() returns smallint language sql stable parallel safe as %L',
        format('select %s::smallint', shards)
    );
    origin := relay_checkpoint_now();
    -- Whoever publishes first has to fence everything that was left.
    update relay_shards s set fence = array(
        select distinct id from relay_shards r, unnest(r.fence) as id where r.deployment = s.deployment order by id
    )
    where s.shard = 0;
    delete from relay_shards s where s.shard >= shards;
    delete from relay_checkpoints;
    insert into relay_checkpoints (deployment, shard, position, checkpoint, recorded_at)
    select d.deployment, s.shard, (origin -> 'since' ->> 'position')::bigint, origin, now()
    from relay_deployments d cross join generate_series(0, shards - 1) s (shard);
    perform relay_begin_again(d.deployment, null) from relay_deployments d;
    insert into relay_actions (deployment, verb, name) select d.deployment, 'reshard', shards::text from relay_deployments d;
end
$$;

-- Takes events that a deployment's topics have for passed, of those that the copies of its checkpoints do not say are published.
-- Returns how many these are.
create function annals.relay_pass(deployment text, published bigint[]) returns bigint
language sql volatile
security definer
set search_path = annals, pg_temp
as $$
    with passed as (
        insert into relay_passed (deployment, position)
        select relay_pass.deployment, e.position
        from unnest(relay_pass.published) as p (position)
        join events e on e.position = p.position
        left join relay_checkpoints c on c.deployment = relay_pass.deployment and c.shard = shard_of(e.stream)
        where c.checkpoint is null
            or not relay_is_published(e.position, e.xid, c.checkpoint)
            or exists (
                select from relay_holds h
                where h.deployment = relay_pass.deployment and h.shard = c.shard and h.name in (e.stream, e.category)
            )
        on conflict do nothing
        returning 1
    )
    select count(*) from passed
$$;

-- Records how far topics are written; never moves an end back. `covered` are the same ends where everything before them is passed by
-- a rebase, or nulls. Nothing when the database is not the one that the caller knew.
--
-- An end is asked for before it is recorded: what is written before it was visible then. It is covered by a checkpoint that
-- begins at a bound of later, and a bound whose position is above the highest that was visible then is of later, whoever wrote
-- what, and whether or not he learned that it was committed.
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
    -- In one order for everybody, so that no two can deadlock.
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

-- Begins a deployment anew after its database's history was lost in part, or its checkpoints: from the copies of checkpoints in
-- this history. The events that its topics have beyond them are passed before (`relay_pass`).
create function annals.relay_rebase(deployment text, reason text) returns void
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
    perform relay_begin_again(relay_rebase.deployment, null);
    delete from relay_topic_ends t where t.deployment = relay_rebase.deployment;
    insert into relay_actions (deployment, verb, reason) values (relay_rebase.deployment, 'rebase', relay_rebase.reason);
end
$$;

-- Notes that the topics of a publication are released, while none of its relays runs here; one of another store has none here.
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

-- The topics that were published to, as they were when first used: a stream's order stands on the
-- partition count.
create table annals.relay_topics (
    topic text collate "C" primary key,
    partitions int not null,
    recorded_at timestamptz not null default now()
);

-- The registry's answers, so that known schemas need no registry.
create table annals.relay_schema_ids (
    subject text collate "C" not null,
    fingerprint bigint not null,
    id bigint not null,
    recorded_at timestamptz not null default now(),
    primary key (subject, fingerprint)
);

-- Forgets a deployment that is gone for good: its checkpoints hold back the outbox. A relay that still runs under
-- this name writes them again. Returns how many rows there were.
create function annals.relay_forget(deployment text) returns bigint
language sql
security definer
set search_path = annals, pg_temp
as $$
    with forgotten as (
        delete from annals.relay_checkpoints c where c.deployment = relay_forget.deployment returning 1
    ),
    kept as (
        delete from annals.relay_origins o where o.deployment = relay_forget.deployment
    ),
    ends as (
        delete from annals.relay_topic_ends t where t.deployment = relay_forget.deployment
    )
    select count(*) from forgotten
$$;

-- The lowest partition of the outbox, if every deployment has published all of it: each shard's checkpoint is above it,
-- and has seen each transaction that wrote to it. No row: it is not published yet.
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
        select c.relname, substring(c.relname from 'outbox_(\d+)$')::bigint as number
        from pg_inherits i join pg_class c on c.oid = i.inhrelid
        where i.inhparent = 'outbox'::regclass
    ) o
    order by o.number
    limit 1;
    -- A deployment without a checkpoint of each shard has published nothing of the others.
    if not exists (select from relay_checkpoints)
        or exists (select from relay_checkpoints c group by c.deployment having count(*) < shard_count())
        or exists (select from relay_checkpoints c where c.position < upper)
    then
        return;
    end if;
    -- Inside a window, what its end has seen is published up to the position, and that is beyond the partition. What a
    -- snapshot has not seen the end of is named in it, or not below its xmax: found in the index.
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
    -- In one whose positions went with rollbacks there is no transaction.
    xid_min := coalesce(xid_min, '0');
    xid_max := coalesce(xid_max, '0');
    return next;
end
$$;

-- Drops the lowest partition of the outbox if it is published; returns how many were dropped, 0 or 1.
--
-- To drop, nobody may use the outbox, and whoever wants to use it meanwhile waits behind. So it gives up at once where
-- somebody has the partition open for longer, as a backup does, and after 20 ms where appends are slow to end.
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
        -- Only tried: whoever drops takes the outbox first, as everybody else does.
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
    -- Somebody may have dropped it, or appended to it, meanwhile.
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

-- Takes the store over into the cluster that it is in now, after a dump and restore, a logical copy or an upgrade: everything
-- that is here counts as visible, whatever transaction ids it has. With `is_copy` it is another store from now on, which knows
-- nothing of what relays of the first one did. Logged. Refused where the store is at home, unless it is to become a copy.
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
    -- Who appends has a stream locked before it draws a position: after this, no position below the line is still to be visible.
    lock table streams, identity in share row exclusive mode;
    if not adopt.is_copy and (select i.system_identifier from identity i) = here then
        raise exception 'the store is in its own cluster, %: there is nothing to adopt', here
            using errcode = 'object_not_in_prerequisite_state',
                hint = 'A copy that is to be a store of its own is adopted as a copy.';
    end if;
    -- A logical copy does not bring the sequence along.
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
            where c.relnamespace = 'annals'::regnamespace and c.relkind = 'r' and c.relname like 'relay\_%'
        loop
            execute format('delete from %s', kept);
        end loop;
    end if;
    perform outbox_extend(4 * outbox_partition_positions());
end
$$;
