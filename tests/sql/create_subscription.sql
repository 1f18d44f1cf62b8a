-- Copies all tables and follows what is written to them; `the_source` stands for the other
-- database's URL.
create subscription everything connection 'the_source' publication everything
