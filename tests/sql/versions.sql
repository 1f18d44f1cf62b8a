-- Reads the versions of some streams as they are at one instant. $1 names.
-- A stream that does not exist gives no row.
select name, version from annals.streams where name = any ($1) order by name
