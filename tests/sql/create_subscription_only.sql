-- Follows what is written to all tables from now on; `the_source` stands for the other database's
-- URL.
create subscription everything connection 'the_source' publication everything with (copy_data = false)
