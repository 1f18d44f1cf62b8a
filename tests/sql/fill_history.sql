-- $1 events of 1,000 streams, each like the event of the stream account-old.
with template as (
    select e.* from annals.events e where e.stream = 'account-old'
),
filled as materialized (
    select nextval('annals.positions') as position, 'account-old' || mod(i, 1000) as stream, i / 1000 as version
    from generate_series(0, $1::bigint - 1) i
),
named as (
    insert into annals.streams (name, category, version_min)
    select f.stream, 'account', max(f.version) from filled f group by f.stream
),
recorded as (
    insert into annals.events (
        position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers
    )
    select
        f.position, f.stream, f.version, gen_random_uuid(), t.category, t.event_type, t.fingerprint,
        t.recorded_at - interval '1 year', t.payload, t.data, t.metadata, t.headers
    from filled f, template t
)
insert into annals.outbox (position, shard) select f.position, annals.shard_of(f.stream) from filled f
