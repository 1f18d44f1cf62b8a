-- Appends one event to a stream of any name, past the checks of the client. $1 name, $2 event id,
-- $3 fingerprint. Always one row.
select outcome, refusals::text as refusals
from annals.append(
    array[$1], array[-2::bigint], array[1], array[$2], array['MoneyDeposited'], array[$3], array[''::bytea],
    array['{}'::jsonb], array['{}'::jsonb], array['{}'::jsonb]
)
