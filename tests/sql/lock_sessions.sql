-- Relays wait before they renew a lease or report their state, until the connection ends.
begin;
lock table annals.relay_sessions, annals.relay_reports in exclusive mode
