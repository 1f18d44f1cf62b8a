-- Writes the store's events to Debezium's table, ten in a transaction, as they were appended: the
-- same keys and the same values, registry prefix included.
do $$
declare
    batch constant bigint := 10;
    last constant bigint := (select coalesce(max(position), 0) from annals.events);
begin
    -- Nothing here has to outlive a crash, and the log that Debezium reads is the same.
    perform set_config('synchronous_commit', 'off', false);
    truncate public.outbox;
    commit;
    for low in 0 .. last - 1 by batch loop
        insert into public.outbox (id, aggregatetype, aggregateid, type, payload)
        select e.event_id, e.category, e.stream, e.event_type, '\x0000000001'::bytea || e.payload
        from annals.events e where e.position > low and e.position <= low + batch order by e.position;
        commit;
    end loop;
end
$$
