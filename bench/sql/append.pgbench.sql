-- For pgbench, in prepared mode. Appends to one of the streams what the store would append, through
-- the procedure that the store calls. The events come as parameters, as they do from the store.
-- Event ids rise with time, like those of UUID version 7 - random ones would cost the index more.
\set append :append + 1
\set id 1000000000000000000 + :append * 1000 + :client_id
\set stream random(0, :streams - 1)
call annals.append_and_commit(
    array['parcel-' || :stream], array[-2]::bigint[], :stream_of, replace(:event_ids, 'append-id', :id)::uuid[],
    :event_types, :fingerprints, :payloads, :data, :metadata, :headers, 0,
    null, null, null, null, null
);
