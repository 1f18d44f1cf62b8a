-- What the relay keeps here: few rows, updated in place. The relay's own statements use them.

-- Who publishes. The epoch only grows; times are the database's.
create table annals.relay_leases (
    deployment text collate "C" primary key,
    instance text not null,
    session uuid not null,
    epoch bigint not null,
    taken_at timestamptz not null,
    expires_at timestamptz not null
) with (fillfactor = 50);

comment on column annals.relay_leases.session is 'one start of the relay process';

-- Copies of the checkpoints that stand in Kafka, for clean-up and for people.
create table annals.relay_checkpoints (
    deployment text collate "C" not null,
    shard smallint not null,
    position bigint not null,
    checkpoint jsonb not null,
    recorded_at timestamptz not null,
    primary key (deployment, shard)
) with (fillfactor = 50);

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
    -- What a snapshot has not seen the end of is named in it, or not below its xmax: found in the index.
    execute format(
        'select
            (select o.xid from %1$I o order by o.xid limit 1),
            (select o.xid from %1$I o order by o.xid desc limit 1),
            exists (
                select from (select distinct c.checkpoint -> ''since'' ->> ''snapshot'' as text from relay_checkpoints c) s
                where exists (
                    select from %1$I o
                    where o.xid >= pg_snapshot_xmax(s.text::pg_snapshot)
                        or o.xid = any (array(select pg_snapshot_xip(s.text::pg_snapshot)))
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
    insert into outbox_dropped (lower, upper, xid_min, xid_max)
    values (published.lower, published.upper, published.xid_min, published.xid_max);
    return 1;
end
$$;
