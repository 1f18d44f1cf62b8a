-- A stream of 30,000 versions behind the other events, of which every seventh is missing.
insert into annals.streams (name, category, version_min) values ('long', 'filler', 0);
insert into annals.events (
    position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, data, metadata, headers, xid
)
select
    100000 + i, 'long', i - 1, gen_random_uuid(), 'filler', 'Filled', (select distinct s.fingerprint from annals.schemas s), now(),
    '\x00', '{}', '{}', '{}', '3'
from generate_series(1, 30000) i
where mod(i, 7) <> 3;
analyze annals.events
