-- Lists all schemas that are registered for a category. $1 category.
-- No row: none is.
select fingerprint, definition from annals.schemas where category = $1 order by full_name, recorded_at, fingerprint
