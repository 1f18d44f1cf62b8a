-- Removes the copy of a database. `the_database` stands for its name.
drop database the_database_copy with (force)
