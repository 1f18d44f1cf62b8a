-- The outcomes of append_by_functions.sql, with their numbers.
select outcome || ' ' || count(*) from outcomes group by outcome order by outcome
