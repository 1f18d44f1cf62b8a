-- Makes a test's database; `the_database` stands for its name.
create database the_database
