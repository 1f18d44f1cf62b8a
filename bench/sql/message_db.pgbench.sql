-- For pgbench, in prepared mode. Message DB's own function, any expected version, in as many
-- categories as are given.
\set category :client_id % :categories
\set stream random(0, :streams - 1)
select message_store.write_message(
    gen_random_uuid()::varchar, ('parcel' || :category || '-' || :stream)::varchar,
    'ParcelScanned', :data::jsonb, '{}'::jsonb
);
