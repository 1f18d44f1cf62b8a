-- A table that Annals knows nothing of.
create table scratch (number int)
