-- As if a later version of the crate had migrated this database.
insert into annals.migrations (version, description, success, checksum, execution_time) values (999, 'later', true, '\x00', 0)
