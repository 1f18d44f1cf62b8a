-- Puts a database's copy in its place, as a restore does. `the_database` stands for its name.
alter database the_database_copy rename to the_database
