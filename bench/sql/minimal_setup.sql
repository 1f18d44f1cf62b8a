-- Makes the smallest table that keeps two writers from the same version, with an event of each of
-- 50,000 streams.
create schema minimal;
create table minimal.events (
    stream text not null,
    version bigint not null,
    event_id uuid not null,
    event_type text not null,
    data jsonb not null,
    metadata jsonb not null,
    unique (stream, version)
);
insert into minimal.events
select 'parcel-' || n, 0, gen_random_uuid(), 'ParcelScanned', '{}', '{}' from generate_series(0, 49999) as n
