-- Writes a snapshot, unless a later one is written.
-- $1 stream, $2 fingerprint and $3 full name of the state's schema, $4 version, $5 removed events
-- up to it, $6 state.
insert into annals.snapshots as s (stream, fingerprint, state_type, version, removed, state)
values ($1, $2, $3, $4, $5, $6)
on conflict (stream, fingerprint) do update
set state_type = excluded.state_type, version = excluded.version, removed = excluded.removed, state = excluded.state,
    recorded_at = excluded.recorded_at
where (s.version, s.removed) < (excluded.version, excluded.removed) or s.removed < excluded.removed
