-- The outbox's partitions and what they take on the disk. One row.
select count(*) as partitions, sum(pg_total_relation_size(inhrelid))::bigint as bytes
from pg_inherits where inhparent = 'annals.outbox'::regclass
