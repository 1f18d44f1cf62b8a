-- Inserts one row, in whatever transaction the connection is in.
insert into public.plain default values
