-- Some 200,000 events, each the first of a stream of the category account, all in shard 1, with a
-- schema that no registry has, that nothing has published.
insert into annals.schemas (category, fingerprint, full_name, definition)
select
    'account', ('x' || encode(substr(sha256(convert_to(d.definition, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint, 'Unregistered',
    d.definition
from (values ('{"type":"record","name":"Unregistered","fields":[]}')) d (definition);
select annals.outbox_extend(200000);
create temporary table filled as
select nextval('annals.positions') as position, i.stream
from (select 'account-many' || i as stream from generate_series(1, 1600000) i) i
where annals.shard_of(i.stream) = 1;
insert into annals.streams (name, category, version_min) select f.stream, 'account', 0 from filled f;
insert into annals.events (
    position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers
)
select
    f.position, f.stream, 0, gen_random_uuid(), 'account', 'Unregistered', s.fingerprint, clock_timestamp(), '', '{}', '{}', '{}'
from filled f, annals.schemas s
where s.full_name = 'Unregistered';
insert into annals.outbox (position, shard) select f.position, annals.shard_of(f.stream) from filled f
