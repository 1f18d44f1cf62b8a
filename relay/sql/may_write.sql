-- Whether this session may write: false on a standby, and where server, database or login are
-- read-only. One row.
select not current_setting('transaction_read_only')::boolean
