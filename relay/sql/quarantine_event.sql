-- Reads the event that a stream is quarantined for. $1 deployment, $2 stream.
-- No row: the stream is not quarantined.
-- The events behind it are not counted, which takes long for millions: their number is that of
-- their versions, removed ones included.
select
    h.cause, h.reason, h.position, h.attempts,
    (extract(epoch from h.quarantined_at) * 1000000)::bigint as quarantined_us,
    (extract(epoch from h.tried_at) * 1000000)::bigint as tried_us,
    e.version, e.event_id, e.event_type, e.fingerprint, e.payload, e.metadata::text as metadata, e.headers::text as headers,
    (
        select b.version from annals.events b where b.stream = h.name order by b.version desc limit 1
    ) - e.version as behind
from annals.relay_quarantine h
left join annals.events e on e.position = h.position
where h.deployment = $1 and h.kind = 'stream' and h.name = $2
