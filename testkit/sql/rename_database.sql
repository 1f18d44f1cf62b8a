-- Gives a database another name; `the_database` and `the_other` stand for the names.
alter database the_database rename to the_other
