-- Whether the connection is encrypted, and the common name of the client's certificate; nothing
-- for a client without one. No parameter.
select ssl, coalesce(client_dn, '') from pg_stat_ssl where pid = pg_backend_pid();
