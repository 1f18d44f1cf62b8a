-- Whether a session has a name and the option compute_query_id, by which its statements have ids.
-- $1 application name. One row.
select exists (
    select from pg_stat_activity where datname = current_database() and application_name = $1 and query_id is not null
)
