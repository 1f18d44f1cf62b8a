-- Reads published events of some positions, in position order: those that the cursors of their
-- shards, or of their quarantine entries, cover, without those that an operator skipped.
-- $1 deployment, $2 shards, $3 their cursors; quarantine entries: $4 shards, $5 kinds, $6 names,
-- $7 cursors. $8 position to start after, $9 last position, $10 and $11 the first recorded time and
-- the one after the last, $12 positions, $13 and $14 first and last version, $15 the most events,
-- $16 the most bytes: the rows end with the first one whose sum of bytes reaches it.
-- Fewer rows, and fewer bytes in the last one: there are no more.
select
    position, shard, stream, version, event_id, category, event_type, fingerprint,
    recorded_at, payload, metadata, headers, bytes
from (select
    e.position, annals.shard_of(e.stream) as shard, e.stream, e.version, e.event_id, e.category, e.event_type, e.fingerprint,
    e.recorded_at, e.payload, nullif(e.metadata, '{}') as metadata, nullif(e.headers, '{}') as headers,
    octet_length(e.payload) + pg_column_size(e.metadata) + pg_column_size(e.headers) as size,
    (sum(octet_length(e.payload) + pg_column_size(e.metadata) + pg_column_size(e.headers))
        over (order by e.position rows unbounded preceding))::bigint as bytes
from annals.events e
left join unnest($2::smallint[], $3::jsonb[]) as c (shard, cursor) on c.shard = annals.shard_of(e.stream)
left join unnest($4::smallint[], $5::text[], $6::text[], $7::jsonb[]) as s (shard, kind, name, cursor)
    on s.kind = 'stream' and s.name = e.stream
left join unnest($4::smallint[], $5::text[], $6::text[], $7::jsonb[]) as q (shard, kind, name, cursor)
    on q.kind = 'category' and q.name = e.category and q.shard = annals.shard_of(e.stream)
where e.position = any($12::bigint[]) and e.position > $8 and e.position <= $9
    and e.recorded_at >= coalesce($10::text::timestamptz, '-infinity') and e.recorded_at < coalesce($11::text::timestamptz, 'infinity')
    and e.version >= coalesce($13::bigint, 0) and e.version <= coalesce($14::bigint, e.version)
    and annals.relay_is_published(e.position, e.xid, coalesce(s.cursor, q.cursor, c.cursor))
    and not exists (
        select from annals.relay_skipped k where k.deployment = $1 and k.position = e.position and k.stream is not null
    )
order by e.position
limit $15) as page
where bytes - size < $16
order by position
