-- As if the leases of all processes that replay had run out.
update annals.relay_replays set expires_at = clock_timestamp() where state = 'unfinished'
