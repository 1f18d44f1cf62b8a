-- Twenty transactions that write and are rolled back: nothing of them waits for the disk. Not in a
-- transaction.
-- So few that they rarely fill a page of the log: full ones are written at once.
do $$
begin
    for number in 1 .. 20 loop
        insert into scratch values (number);
        rollback;
    end loop;
end
$$
