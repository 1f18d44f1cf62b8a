-- Makes independent appends in one transaction, committed by the server within this round trip.
-- $1 streams, $2 append_streams, $3 expected, $4 append_of, $5 event_ids, $6 event_types, $7
-- fingerprints, $8 payloads, $9 data, $10 metadata, $11 headers, $12 conflict_events_max: see
-- annals.append_each.
-- One row.
call annals.append_each_and_commit(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, null, null, null, null, null
)
