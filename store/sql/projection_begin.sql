-- Begins a transaction of a projection, whatever the default of the database is: above read
-- committed, a renewal of the lease would abort it.
begin isolation level read committed
