-- Appends inside the transaction of the caller.
-- $1 streams, $2 expected, $3 stream_of, $4 event_ids, $5 event_types, $6 fingerprints, $7
-- payloads, $8 data, $9 metadata, $10 headers, $11 conflict_events_max: see annals.append. Always
-- one row.
select outcome, versions, positions, recorded_at, refusals
from annals.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
