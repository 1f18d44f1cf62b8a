-- Reads the version of the server. Always one row.
select current_setting('server_version') as version
