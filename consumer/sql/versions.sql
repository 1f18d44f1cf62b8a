-- The last versions applied of some streams, with the ids of their last events.
-- $1 projection, $2 streams. No row: the projection has not seen the stream.
--
-- A lookup by key for each stream. With `stream = any ($2)` the plan that PostgreSQL keeps, made while the
-- table is small, reads all streams of the projection and compares each with every one of the list.
select wanted.stream, v.version, v.event_ids
from unnest($2::text[]) as wanted (stream)
cross join lateral (
    select v.version, v.event_ids
    from annals_projections.annals_projection_versions v
    where v.projection = $1 and v.stream = wanted.stream
    offset 0
) v
