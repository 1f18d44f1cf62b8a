-- Appends events with tags, under conditions on tags, in a transaction of its own, on a
-- connection that is not in a transaction block: the server commits the statement before it is
-- ready for the next one.
-- $1 streams, $2 expected, $3 stream_of, $4 event_ids, $5 event_types, $6 fingerprints, $7
-- payloads, $8 data, $9 metadata, $10 headers, $11 conflict_events_max, $12 tag_of, $13 tags, $14
-- condition_tags, $15 condition_after, $16 condition_types: see annals.append_tagged.
-- No row: the default isolation level of the session is not READ COMMITTED, and nothing is
-- written.
select outcome, versions, positions, recorded_at, refusals
from annals.append_tagged($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)
where current_setting('transaction_isolation') = 'read committed'
