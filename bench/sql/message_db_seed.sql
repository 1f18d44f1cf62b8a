-- An event of each of 50,000 streams, as the other sides have them.
insert into message_store.messages (position, stream_name, type, data, metadata)
select 0, 'parcel0-' || n, 'ParcelScanned', '{}', '{}' from generate_series(0, 49999) as n
