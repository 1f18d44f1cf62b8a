-- Reads the schemas of the store, the last ones first. $1 limit. One row each category and schema.
select category, definition from annals.schemas order by recorded_at desc limit $1
