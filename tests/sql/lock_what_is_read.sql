-- Locks a table that the relay reads, and no append needs, until the connection ends.
begin;
lock table annals.outbox_dropped in access exclusive mode;
