-- As a relay that says how far the one partition of a topic is written. $1 the end.
select annals.relay_record_ends('test', 'a', annals.incarnation(), array['topic'], array[0], array[$1::bigint], array[null::bigint])
