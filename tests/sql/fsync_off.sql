-- Makes the server believe its disk. A statement a line: neither may run in a transaction.
alter system set fsync = off
select pg_reload_conf()
