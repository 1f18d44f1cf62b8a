-- For pgbench, in prepared mode. One event an insert, its version chosen by the client, nothing
-- else: what a unique constraint costs.
\set append :append + 1
\set version :client_id * 1000000000 + :append
\set stream random(0, :streams - 1)
insert into minimal.events (stream, version, event_id, event_type, data, metadata)
values ('parcel-' || :stream, :version, gen_random_uuid(), 'ParcelScanned', :data::jsonb, '{}');
