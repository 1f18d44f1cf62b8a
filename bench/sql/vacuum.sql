-- Vacuums and analyses all tables of the database, so that the server has no reason to do it soon.
vacuum (analyze)
