-- Creates the tables for offsets and versions of projections, unless they exist.
-- The advisory lock, held until the end of the transaction, serialises concurrent runs.
-- A role without the right to create schemas can run it once the tables exist.
do $$
begin
    perform pg_advisory_xact_lock(hashtextextended('annals_projections.prepare', 0));
    if to_regclass('annals_projections.annals_projection_shown') is not null then
        return;
    end if;
    create schema if not exists annals_projections;

    -- For each partition that a projection reads: the offset of the next record, and the event of
    -- the record before it, or a hash of a record that is no event. If the topic has another record
    -- there, it is not the same topic. Only the owner of the last epoch updates the offset.
    create table if not exists annals_projections.annals_projection_offsets (
        projection  text    not null,
        topic       text    not null,
        partition   integer not null check (partition >= 0),
        next_offset bigint  not null check (next_offset >= 0),
        last_event  uuid,
        owner_epoch bigint  not null default 0,
        primary key (projection, topic, partition)
    ) with (fillfactor = 50);
    -- Tables of the versions before.
    alter table annals_projections.annals_projection_offsets
        drop constraint if exists annals_projection_offsets_check,
        add column if not exists owner_epoch bigint not null default 0;

    -- For each stream of a projection: the last applied version, and the ids of its event and those
    -- before it, the last first. Another event under one of these versions belongs to another
    -- history.
    create table if not exists annals_projections.annals_projection_versions (
        projection text collate "C" not null,
        stream     text collate "C" not null,
        version    bigint not null check (version >= 0),
        event_ids  uuid[] not null check (cardinality(event_ids) between 1 and 8),
        primary key (projection, stream)
    -- A batch can update each row of a page: with room for all of them, no update writes to the
    -- index.
    ) with (fillfactor = 45);
    alter table annals_projections.annals_projection_versions set (fillfactor = 45);

    -- Gaps of streams that a person accepted: the events between are lost for the projection.
    create table if not exists annals_projections.annals_projection_gaps (
        projection  text collate "C" not null,
        stream      text collate "C" not null,
        expected    bigint not null check (expected >= 0),
        found       bigint not null check (found > expected),
        reason      text not null check (reason <> ''),
        accepted_by text not null default session_user,
        accepted_at timestamptz not null default clock_timestamp(),
        primary key (projection, stream, expected, found)
    );

    -- Records that a projection could not apply. Header values are in the order of their names.
    create table if not exists annals_projections.annals_projection_dead_letters (
        projection    text collate "C" not null,
        topic         text collate "C" not null,
        partition     integer not null,
        record_offset bigint not null,
        key           bytea,
        value         bytea,
        header_names  text[] not null,
        header_values bytea[] not null,
        stream        text,
        version       bigint,
        event_id      uuid,
        event_type    text,
        error         text not null,
        recorded_at   timestamptz not null default clock_timestamp(),
        primary key (projection, topic, partition, record_offset)
    );

    -- Records that were removed from a topic before the projection had read them, and whose loss a
    -- person accepted: those from first_removed, before next_offset.
    create table if not exists annals_projections.annals_projection_removals (
        projection    text collate "C" not null,
        topic         text collate "C" not null,
        partition     integer not null,
        first_removed bigint not null,
        next_offset   bigint not null check (next_offset > first_removed),
        reason        text not null check (reason <> ''),
        accepted_by   text not null default session_user,
        accepted_at   timestamptz not null default clock_timestamp(),
        primary key (projection, topic, partition, next_offset)
    );

    -- Versions of projections that keep their read models in schemas of their own,
    -- <name>_v<version>, with the statements that created the tables. Their progress is stored
    -- under that name.
    create table if not exists annals_projections.annals_projection_read_models (
        name        text collate "C" not null,
        version     integer not null check (version > 0),
        tables      text not null,
        prepared_at timestamptz not null default clock_timestamp(),
        primary key (name, version)
    );

    -- The version of each read model that readers see, through the views in the schema <name>.
    create table if not exists annals_projections.annals_projection_shown (
        name    text collate "C" not null primary key,
        version integer not null,
        foreign key (name, version)
            references annals_projections.annals_projection_read_models
    );
end
$$;
