-- Settings of a database that change what SQL means, how values look, or how long anything may
-- take.
do $$
declare
    setting record;
begin
    for setting in
        select s.name, s.value
        from (values
            ('standard_conforming_strings', 'off'), ('escape_string_warning', 'off'), ('backslash_quote', 'off'),
            ('bytea_output', 'escape'), ('IntervalStyle', 'sql_standard'), ('DateStyle', 'German'), ('TimeZone', 'Asia/Kolkata'),
            ('extra_float_digits', '-15'), ('array_nulls', 'off'), ('transform_null_equals', 'on'),
            ('quote_all_identifiers', 'on'), ('search_path', 'pg_catalog'), ('row_security', 'off'),
            ('synchronous_commit', 'off'), ('default_transaction_deferrable', 'on'), ('client_min_messages', 'error'),
            ('plpgsql.variable_conflict', 'use_column'), ('plan_cache_mode', 'force_custom_plan'),
            ('jit_above_cost', '0'), ('force_parallel_mode', 'on'), ('debug_parallel_query', 'on'),
            ('parallel_setup_cost', '0'), ('parallel_tuple_cost', '0'), ('min_parallel_table_scan_size', '0'),
            ('lock_timeout', '20s'), ('statement_timeout', '60s'), ('idle_in_transaction_session_timeout', '5s'),
            ('idle_session_timeout', '1s'), ('default_transaction_isolation', current_setting('annals_tests.isolation'))
        ) s (name, value)
        where s.name like 'plpgsql.%' or exists (select from pg_settings p where p.name = s.name)
    loop
        execute format('alter database %I set %s = %s', current_database(), setting.name, quote_literal(setting.value));
    end loop;
end
$$
