-- Begins a new file of the write-ahead log, with something in it.
select pg_switch_wal(), pg_logical_emit_message(false, 'test', 'x')
