-- Everything was recorded three days earlier.
update annals.events set recorded_at = recorded_at - interval '3 days'
