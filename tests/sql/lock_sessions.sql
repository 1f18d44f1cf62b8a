-- Relays wait before they prolong a lease, until the connection ends.
begin;
lock table annals.relay_sessions in exclusive mode
