-- A table of an application's own, of the plainest kind.
create table public.plain (id bigint generated always as identity primary key)
