-- The skipped events of projections, with their reasons.
select event_id::text, reason from annals.projection_skips order by recorded_at
