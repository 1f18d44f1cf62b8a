-- Locks the table of what the relay knows of topics, until the connection ends.
begin;
lock table annals.relay_topics in access exclusive mode;
