-- The lease of an unfinished replay as a clock has given it that was a day ahead.
update annals.relay_replays set expires_at = expires_at + interval '1 day' where state = 'unfinished'
