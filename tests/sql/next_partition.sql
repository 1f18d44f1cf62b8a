-- Goes on with the first position of the next partition of the outbox, as after millions of events.
select setval('annals.positions', (last_value / size + 1) * size, false)
from annals.positions, annals.outbox_partition_positions() as size
