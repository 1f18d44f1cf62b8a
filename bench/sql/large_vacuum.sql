-- Freezes the events that were written since the last time, as autovacuum does after each million.
vacuum (freeze) annals.events
