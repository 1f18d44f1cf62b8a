-- Lets the server read its settings again.
select pg_reload_conf()
