-- Accepts a gap of a stream, so that the projection goes on behind it.
-- $1 projection, $2 stream, $3 expected version, $4 version found, $5 reason.
-- No row inserted: the gap was accepted before.
insert into annals_projections.annals_projection_gaps (projection, stream, expected, found, reason)
values ($1, $2, $3, $4, $5)
on conflict do nothing
