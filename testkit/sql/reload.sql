-- Makes the server read its configuration again; returns the time of the reload before. No
-- parameter.
select pg_conf_load_time()::text from pg_reload_conf();
