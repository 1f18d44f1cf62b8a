-- Ends the present segment of WAL, also if nothing was written to it. Returns its last position.
select pg_switch_wal()::text from pg_logical_emit_message(false, 'test', 'end of a segment')
