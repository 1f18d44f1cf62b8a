-- Registers a schema for the category account, past the checks of the client. $1 fingerprint, null:
-- that of the definition, $2 full name, $3 definition. Always one row: the fingerprint.
select f.fingerprint
from (
    select coalesce(
        $1::bigint, ('x' || encode(substr(sha256(convert_to($3::text, 'UTF8')), 1, 8), 'hex'))::bit(64)::bigint
    ) as fingerprint
) f
cross join lateral (select annals.register_schema('account', f.fingerprint, $2::text, $3::text)) r
