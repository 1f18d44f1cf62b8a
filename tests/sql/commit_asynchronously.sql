-- Twenty transactions that do not wait for the disk. Not in a transaction.
-- So few that they rarely fill a page of the log: full ones are written at once.
do $$
begin
    perform set_config('synchronous_commit', 'off', false);
    for number in 1 .. 20 loop
        insert into scratch values (number);
        commit;
    end loop;
end
$$
