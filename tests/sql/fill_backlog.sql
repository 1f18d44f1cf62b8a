-- 60,000 events of 3,000 streams of three categories that nothing has published, of which two
-- thirds of the second half are in one category, as if recorded over 60,000 seconds.
insert into annals.schemas (category, fingerprint, full_name, definition)
select c.category, ('x' || encode(substr(sha256(convert_to(d.definition, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint, 'Filled', d.definition
from (values ('filler'), ('other'), ('third')) c (category)
cross join (values ('{"type":"record","name":"Filled","fields":[]}')) d (definition);
create temporary table backlog as
select i as position, c.category, c.category || '-' || mod(i, 1000) as stream
from generate_series(1, 60000) i
cross join lateral (
    select case when mod(i, 3) = 0 then 'filler' when mod(i, 3) = 1 or i > 30000 then 'other' else 'third' end as category
) c;
insert into annals.streams (name, category, version_min)
select stream, category, count(*) - 1 from backlog group by stream, category;
insert into annals.events (
    position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers
)
select
    b.position, b.stream, row_number() over (partition by b.stream order by b.position) - 1, gen_random_uuid(), b.category,
    'Filled', (select distinct s.fingerprint from annals.schemas s), now() - (60000 - b.position) * interval '1 second',
    '\x00', '{}', '{}', '{}'
from backlog b;
insert into annals.outbox (position, shard) select b.position, annals.shard_of(b.stream) from backlog b
