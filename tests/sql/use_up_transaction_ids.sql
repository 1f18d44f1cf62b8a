-- Uses up so many transaction ids that a window over them is a large one. Not in a transaction.
do $$
begin
    for i in 1 .. 2100 loop
        perform pg_current_xact_id();
        commit;
    end loop;
end
$$
