-- Counts the events of each category.
select category::text, count(*) as events from annals.events group by category order by category
