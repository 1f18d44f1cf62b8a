-- Creates the tables for offsets and versions of projections, unless they exist.
-- The advisory lock, held until the end of the transaction, serialises concurrent runs.
-- A role without the right to create schemas can run it once the tables exist.
do $$
begin
    perform pg_advisory_xact_lock(hashtextextended('annals_projections.prepare', 0));
    if to_regclass('annals_projections.annals_projection_gaps') is not null then
        return;
    end if;
    create schema if not exists annals_projections;

    -- For each partition that a projection reads: the offset of the next record, and the event of
    -- the record before it. If the topic has another event there, it is not the same topic.
    create table annals_projections.annals_projection_offsets (
        projection  text    not null,
        topic       text    not null,
        partition   integer not null check (partition >= 0),
        next_offset bigint  not null check (next_offset >= 0),
        last_event  uuid    check ((last_event is null) = (next_offset = 0)),
        primary key (projection, topic, partition)
    ) with (fillfactor = 50);

    -- For each stream of a projection: the last applied version, and the ids of its event and those
    -- before it, the last first. Another event under one of these versions belongs to another
    -- history.
    create table annals_projections.annals_projection_versions (
        projection text collate "C" not null,
        stream     text collate "C" not null,
        version    bigint not null check (version >= 0),
        event_ids  uuid[] not null check (cardinality(event_ids) between 1 and 8),
        primary key (projection, stream)
    ) with (fillfactor = 80);

    -- Gaps of streams that a person accepted: the events between are lost for the projection.
    create table annals_projections.annals_projection_gaps (
        projection  text collate "C" not null,
        stream      text collate "C" not null,
        expected    bigint not null check (expected >= 0),
        found       bigint not null check (found > expected),
        reason      text not null check (reason <> ''),
        accepted_by text not null default session_user,
        accepted_at timestamptz not null default clock_timestamp(),
        primary key (projection, stream, expected, found)
    );
end
$$;
