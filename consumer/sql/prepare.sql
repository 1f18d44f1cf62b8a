-- Creates what projections keep about themselves, unless it is there already.
-- Two programs may run this at once: the lock, released with the transaction, lets one go first.
-- A role without the right to create schemas can run it once the tables exist.
do $$
begin
    perform pg_advisory_xact_lock(hashtextextended('annals_projections.prepare', 0));
    if to_regclass('annals_projections.annals_projection_versions') is not null then
        return;
    end if;
    create schema if not exists annals_projections;

    -- The offset of the next record to read, of each partition that a projection reads, and the event
    -- before it: if the topic holds another one there, it is not the topic that was read.
    create table annals_projections.annals_projection_offsets (
        projection  text    not null,
        topic       text    not null,
        partition   integer not null check (partition >= 0),
        next_offset bigint  not null check (next_offset >= 0),
        last_event  uuid    check ((last_event is null) = (next_offset = 0)),
        primary key (projection, topic, partition)
    ) with (fillfactor = 50);

    -- The last version that a projection has applied, of each stream it has seen, and the ids of its event and of those
    -- before it, the last first: another event under one of these versions is of another history.
    create table annals_projections.annals_projection_versions (
        projection text collate "C" not null,
        stream     text collate "C" not null,
        version    bigint not null check (version >= 0),
        event_ids  uuid[] not null check (cardinality(event_ids) between 1 and 8),
        primary key (projection, stream)
    ) with (fillfactor = 80);
end
$$;
