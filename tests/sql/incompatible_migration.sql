-- As if the later version had made a change that earlier ones cannot work with.
create or replace function annals.oldest_client() returns bigint language sql immutable parallel safe as $$ select 999::bigint $$
