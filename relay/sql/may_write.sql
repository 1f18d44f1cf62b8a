-- Whether this session may write: not on a standby, nor where server, database or login are read-only. Always one row.
select not current_setting('transaction_read_only')::boolean
