-- The outbox of a large store whose events are published: partitions that lie whole below the last
-- position are dropped, as a relay drops them, and the one with the last position has its rows.
do $$
declare
    size constant bigint := annals.outbox_partition_positions();
    last constant bigint := (select max(position) from annals.events);
    partition regclass;
begin
    for partition in select inhrelid::regclass from pg_inherits where inhparent = 'annals.outbox'::regclass loop
        execute format('drop table %s', partition);
    end loop;
    perform setval('annals.positions', last);
    perform annals.outbox_extend(4 * size);
    insert into annals.outbox_dropped (lower, upper, xid_min, xid_max, snapshot, settled)
    select p.lower, p.lower + size, low.xid, high.xid, pg_current_snapshot(), i.settled
    from annals.identity i
    cross join generate_series(0, last - last % size - size, size) p (lower)
    join annals.events low on low.position = greatest(p.lower, 1)
    join annals.events high on high.position = p.lower + size - 1;
    insert into annals.outbox (position, xid, shard)
    select e.position, e.xid, annals.shard_of(e.stream)
    from annals.events e where e.position >= last - last % size order by e.position;
end
$$
