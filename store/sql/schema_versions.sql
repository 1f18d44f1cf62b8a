-- The versions of a schema, in the order in which they were registered. $1 category, $2 full name. No row: there is none yet.
select fingerprint, definition from annals.schemas where category = $1 and full_name = $2 order by recorded_at, fingerprint
