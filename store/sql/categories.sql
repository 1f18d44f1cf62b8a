-- Lists the categories that have a stream, by name.
-- No row: the store is empty. Skips from one category to the next by the key: '.' follows '-', the
-- end of a category.
with recursive jump (category) as (
    (select category from annals.streams order by name limit 1)
    union all
    select (select s.category from annals.streams s where s.name >= j.category || '.' order by s.name limit 1)
    from jump j
    where j.category is not null
)
select category from jump where category is not null
