-- Removes a database. `the_database` stands for its name.
drop database the_database with (force)
