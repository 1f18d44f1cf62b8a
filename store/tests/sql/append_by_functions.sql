-- Appends by each function, in each of the ways that have statements of their own: one event,
-- several to several streams, one of them new; with tags under a condition; in calls, of one event
-- for each stream and of several; each of them again, which repeats it, and refused.
begin;
create function pg_temp.id(number int) returns uuid language sql
as $$ select lpad(to_hex(number + 1048576), 32, '0')::uuid $$;
create function pg_temp.appended(streams text[], expected bigint, first int) returns text language sql
as $$
    select a.outcome
    from (select min(s.fingerprint) as fingerprint, cardinality(streams) as events from annals.schemas s) s,
        annals.append(
            streams, array_fill(expected, array[events]), array(select generate_series(1, events)),
            array(select pg_temp.id(first + i) from generate_series(1, events) i),
            array_fill('Filled'::text, array[events]), array_fill(s.fingerprint, array[events]),
            array_fill('\x00'::bytea, array[events]), array_fill('{}'::jsonb, array[events]),
            array_fill('{}'::jsonb, array[events]), array_fill('{}'::jsonb, array[events]), 10
        ) a
$$;
create function pg_temp.appended_with_tag(stream text, after bigint, first int) returns text language sql
as $$
    select a.outcome
    from (select min(s.fingerprint) as fingerprint from annals.schemas s) s,
        annals.append_tagged(
            array[stream], array[-2::bigint], array[1], array[pg_temp.id(first)], array['Filled'], array[s.fingerprint],
            array['\x00'::bytea], array['{}'::jsonb], array['{}'::jsonb], array['{}'::jsonb], 10, array[1], array['tag:new'],
            array['tag:7'], array[after], array[null::jsonb]
        ) a
$$;
create function pg_temp.appended_each(streams text[], stream_of int[], expected bigint, first int) returns text[] language sql
as $$
    select a.outcomes
    from (select min(s.fingerprint) as fingerprint, cardinality(stream_of) as events from annals.schemas s) s,
        annals.append_each(
            streams, stream_of, array_fill(expected, array[events]), array(select generate_series(1, events)),
            array(select pg_temp.id(first + i) from generate_series(1, events) i),
            array_fill('Filled'::text, array[events]), array_fill(s.fingerprint, array[events]),
            array_fill('\x00'::bytea, array[events]), array_fill('{}'::jsonb, array[events]),
            array_fill('{}'::jsonb, array[events]), array_fill('{}'::jsonb, array[events]), array_fill(10, array[events])
        ) a
$$;
create temporary table outcomes (outcome text);
insert into outcomes select pg_temp.appended('{filler-7}', -2, 0);
insert into outcomes select pg_temp.appended('{filler-7}', -2, 0);
insert into outcomes select pg_temp.appended('{filler-7}', 3, 10);
insert into outcomes select pg_temp.appended('{filler-8,filler-new}', -2, 20);
insert into outcomes select pg_temp.appended('{filler-8,filler-new}', -2, 20);
insert into outcomes select pg_temp.appended_with_tag('filler-9', 1000000000000, 30);
insert into outcomes select pg_temp.appended_with_tag('filler-9', 0, 40);
insert into outcomes select unnest(pg_temp.appended_each('{filler-10,filler-11}', '{1,2}', -2, 50));
insert into outcomes select unnest(pg_temp.appended_each('{filler-10,filler-11}', '{1,2}', -2, 50));
insert into outcomes select unnest(pg_temp.appended_each('{filler-10,filler-newer}', '{1,2,1}', -2, 60));
insert into outcomes select unnest(pg_temp.appended_each('{filler-10}', '{1}', 3, 70));
