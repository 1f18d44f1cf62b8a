-- Removes a test's database and ends whoever is connected to it; `the_database` stands for its
-- name.
drop database if exists the_database with (force)
