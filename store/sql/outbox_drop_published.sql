-- Drops the lowest partition of the outbox if every deployment has published all of it.
-- One row: the number of dropped partitions.
select annals.outbox_drop_published() as dropped
