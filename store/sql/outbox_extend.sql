-- Makes sure that the outbox has partitions ahead. $1 how many positions ahead.
-- One row: the first position that has no partition.
select annals.outbox_extend($1) as upper
