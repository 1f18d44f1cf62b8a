-- Begins a transaction that has written, and so has an id, and leaves it open.
begin;
create temporary table left_open (n int);
insert into left_open values (1)
