-- Whether the log can be decoded: 'logical', or not.
select current_setting('wal_level')
