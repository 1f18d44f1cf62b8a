-- Writes events of a large store, in one transaction. $1 the first position, $2 how many, $3 how
-- many streams, $4 payloads, $5 fingerprint of their schema, $6 the time of position 0, in
-- milliseconds since 1970.
-- Each stream gets one event in each round of all streams, so that its events are far apart, and
-- its versions are contiguous. The ids ascend, as version 7 does, and so do the times.
insert into annals.events (
    position, stream, version, event_id, category, event_type, fingerprint, recorded_at, payload, metadata, headers
)
select
    e.position, e.category || '-' || e.number, e.version,
    (
        lpad(to_hex($6::bigint + e.position), 12, '0')
        || '7' || lpad(to_hex(e.position & 4095), 3, '0') || '8' || lpad(to_hex(e.position), 15, '0')
    )::uuid,
    e.category, 'ParcelScanned', $5, timestamptz 'epoch' + ($6::bigint + e.position) * interval '1 millisecond',
    ($4::bytea[])[1 + e.position % cardinality($4::bytea[])], '{}', '{}'
from (
    select
        p.position, p.number, (p.position - 1) / $3 as version,
        case when p.number < $3 * 16 / 20 then 'parcel' when p.number < $3 * 19 / 20 then 'pallet' else 'crate' end as category
    from (
        select i as position, (i - 1) % $3 * 611953 % $3 as number from generate_series($1::bigint, $1 + $2::bigint - 1) i
    ) p
) e
