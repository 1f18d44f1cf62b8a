-- Two administrators as a managed server has them, and a login with no right but to connect; a
-- database for each migration.
create role first_admin login createrole createdb;
create role second_admin login createrole createdb;
create role nobody_much login;
