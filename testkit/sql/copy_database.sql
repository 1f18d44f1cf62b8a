-- Copies a database, to which nobody is connected; `the_database` and `the_other` stand for the
-- names.
create database the_other template the_database
