-- Lists all schemas that are registered for a category, in the order of their registration.
-- $1 category.
-- No row: none is.
select fingerprint, definition from annals.schemas where category = $1 order by recorded_at, fingerprint
