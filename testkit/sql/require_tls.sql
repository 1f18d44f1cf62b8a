-- Connections over TLS only, by the rules of access beside the data. Statements are separated by
-- semicolons, since `alter system` is refused in a transaction. No parameter.
alter system set ssl_ca_file = 'root.crt';
alter system set ssl = on;
create role certified login superuser;
select pg_reload_conf()
