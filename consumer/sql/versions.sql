-- Selects the last applied versions of streams, with the ids of their last events.
-- $1 projection, $2 streams. No row: the projection has applied no event of the stream.
--
-- One index lookup for each stream. With `stream = any ($2)` PostgreSQL would keep a plan made
-- while the table is small, which scans all streams of the projection.
select wanted.stream, v.version, v.event_ids
from unnest($2::text[]) as wanted (stream)
cross join lateral (
    select v.version, v.event_ids
    from annals_projections.annals_projection_versions v
    where v.projection = $1 and v.stream = wanted.stream
    offset 0
) v
