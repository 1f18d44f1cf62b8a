-- Makes a row of an event what no append writes. $1 the event's id, then what it gets, null for
-- what stays: $2 headers, $3 metadata, $4 recorded time, $5 fingerprint of its schema.
update annals.events set
    headers = coalesce($2::text::jsonb, headers), metadata = coalesce($3::text::jsonb, metadata),
    recorded_at = coalesce($4::text::timestamptz, recorded_at), fingerprint = coalesce($5, fingerprint)
where event_id = $1
