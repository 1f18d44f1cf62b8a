-- Bytes of the outbox's partitions, with their indexes.
select coalesce(sum(pg_total_relation_size(i.inhrelid)), 0)::bigint
from pg_inherits i where i.inhparent = 'annals.outbox'::regclass
