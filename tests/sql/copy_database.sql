-- Copies a database on its server. `the_database` stands for its name.
create database the_database_copy template the_database
