-- Makes each row that the relay goes through take some ten microseconds, and ends a statement of
-- later sessions after half a second.
create or replace function annals.shard_of(stream text) returns smallint
language plpgsql stable
as $$
begin
    perform md5(repeat(shard_of.stream, 300));
    return mod(hashtextextended(shard_of.stream collate "C", 0) & 9223372036854775807, annals.shard_count()::bigint);
end
$$;
do $$
begin
    execute format('alter database %I set statement_timeout = 500', current_database());
end
$$
