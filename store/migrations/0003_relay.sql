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
