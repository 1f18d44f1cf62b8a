-- Creates partitions of the outbox, if necessary.
-- $1 number of positions ahead.
-- One row: the first position that has no partition.
select annals.outbox_extend($1) as upper
