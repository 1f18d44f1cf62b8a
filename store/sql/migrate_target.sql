-- Reads the server's major version, whether the schema and the table of migrations exist, and the
-- encoding of the database.
select
    current_setting('server_version_num')::int / 10000 as major,
    to_regnamespace('annals') is not null as has_schema,
    to_regclass('annals.migrations') is not null as has_migrations,
    current_setting('server_encoding') as encoding
