-- Lets the rest of the transaction name the tables of a database schema without it. $1 schema.
select set_config('search_path', concat_ws(', ', $1, nullif(current_setting('search_path'), '')), true)
