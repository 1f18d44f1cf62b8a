-- Reads whether this session may call what appends, and cannot write, though the server is no
-- standby: default_transaction_read_only is on for the login, the database or the server. One row.
select
    current_setting('default_transaction_read_only')::boolean and not pg_is_in_recovery()
    and has_function_privilege('annals.register_schema(text, bigint, text, text)', 'execute')
