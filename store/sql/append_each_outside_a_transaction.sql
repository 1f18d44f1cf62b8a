-- Makes independent appends in one transaction, on a connection that is not in a transaction block:
-- the server commits the statement before it is ready for the next one.
-- $1 streams, $2 append_streams, $3 expected, $4 append_of, $5 event_ids, $6 event_types, $7
-- fingerprints, $8 payloads, $9 data, $10 metadata, $11 headers, $12 conflict_events_max: see
-- annals.append_each. No row: the default isolation level of the session is not READ COMMITTED, and
-- nothing is written.
select outcomes, versions, positions, recorded_at, refusals
from annals.append_each($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
where current_setting('transaction_isolation') = 'read committed'
