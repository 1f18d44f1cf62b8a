-- Reads the last migration that a client must know to work with these tables.
select annals.oldest_client()
