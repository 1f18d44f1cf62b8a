-- The version of a schema that was registered last. $1 full name. No row: it has none yet.
select definition from annals.schemas where full_name = $1 order by recorded_at desc limit 1
