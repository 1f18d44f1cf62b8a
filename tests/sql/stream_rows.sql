-- The place of each stream's row in its table, which an update changes, by name.
select name || ' ' || ctid::text from annals.streams order by name
