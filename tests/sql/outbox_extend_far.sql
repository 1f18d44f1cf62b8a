-- Asks for all partitions of the outbox that there can be. One row: the first position without a
-- partition, in partitions.
select annals.outbox_extend(9223372036854775807) / annals.outbox_partition_positions()
