-- Begins a transaction of a projection, also if the default of the database is another one: above
-- read committed, a renewal of the lease would abort it.
begin isolation level read committed
