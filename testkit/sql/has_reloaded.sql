-- Whether the server of this session has read its configuration since a time ($1, as text).
select pg_conf_load_time() > $1::timestamptz;
