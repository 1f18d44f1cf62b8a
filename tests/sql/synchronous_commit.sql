-- What a commit of this transaction waits for. Always one row.
select current_setting('synchronous_commit')
