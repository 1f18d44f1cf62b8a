-- 20,000 copies of the event of a stream, each the first event of a stream of its category, as if
-- recorded in an hour. $1 the stream.
with copied as (
    select e.*, e.category || '-future' || i as copy from annals.events e, generate_series(1, 20000) i where e.stream = $1
),
streams as (
    insert into annals.streams (name, category, version_min) select c.copy, c.category, 0 from copied c
),
events as (
    insert into annals.events (
        position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers
    )
    select
        nextval('annals.positions'), c.copy, 0, gen_random_uuid(), c.category, c.event_type, c.fingerprint,
        now() + interval '1 hour', c.payload, c.data, c.metadata, c.headers
    from copied c
    returning position, stream
)
insert into annals.outbox (position, shard) select e.position, annals.shard_of(e.stream) from events e
