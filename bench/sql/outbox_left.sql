-- How many partitions of the outbox lie whole below the last position.
select count(*) from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'annals.outbox'::regclass
and (substring(c.relname from '\d+$')::bigint + 1) * annals.outbox_partition_positions() <= (select max(position) from annals.events)
