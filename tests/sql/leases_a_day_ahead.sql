-- The times of sessions as a clock has given them that was a day ahead.
update annals.relay_sessions
set expires_at = expires_at + interval '1 day', joined_at = joined_at + interval '1 day', seen_at = seen_at + interval '1 day'
