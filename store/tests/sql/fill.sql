-- 100,000 events of 10,000 streams of three categories, half of them with correlation and
-- causation, as if by 100 transactions.
insert into annals.schemas (category, fingerprint, full_name, definition)
select c.category, ('x' || encode(substr(sha256(convert_to(d.definition, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint, 'Filled', d.definition
from (values ('filler'), ('other'), ('third')) c (category)
cross join (values ('{"type":"record","name":"Filled","fields":[]}')) d (definition);
insert into annals.streams (name, category, version_min) select 'filler-' || i, 'filler', 9 from generate_series(0, 9999) i;
insert into annals.events (
    position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers, xid
)
select
    i, 'filler-' || mod(i, 10000), i / 10000, gen_random_uuid(),
    case mod(i, 10000) % 3 when 0 then 'other' when 1 then 'filler' else 'third' end, 'Filled',
    (select distinct s.fingerprint from annals.schemas s), now(), '\x00', '{}',
    case when mod(i, 2) = 0 then '{}' else jsonb_build_object(
        'correlation_id', lpad(mod(i, 1000)::text, 32, '0')::uuid, 'causation_id', lpad(mod(i, 5000)::text, 32, '0')::uuid
    ) end,
    '{}', (3 + i / 1000)::text::xid8
from generate_series(1, 100000) i;
insert into annals.outbox (position, shard, xid)
select i, mod(i, 8), (3 + i / 1000)::text::xid8 from generate_series(1, 100000) i;
insert into annals.tags (tag, position, event_type)
select 'tag:' || mod(i, 100), i, 'Filled' from generate_series(1, 100000) i;
analyze annals.events;
analyze annals.streams;
analyze annals.outbox;
analyze annals.tags;
