-- Lists the versions of a schema in the order of registration.
-- $1 category, $2 full name.
-- No row: no version is registered.
select fingerprint, definition from annals.schemas where category = $1 and full_name = $2 order by recorded_at, fingerprint
