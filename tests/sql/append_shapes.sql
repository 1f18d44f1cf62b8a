-- Appends events to a stream, past the checks of the client. $1 event ids, $2 fingerprint,
-- $3 metadata, $4 headers, each as text. Always one row.
select outcome, refusals
from annals.append(
    array['account-a'], array[-2::bigint], array_fill(1, array[cardinality($1::uuid[])]), $1,
    array_fill('MoneyDeposited'::text, array[cardinality($1)]), array_fill($2::bigint, array[cardinality($1)]),
    array_fill(''::bytea, array[cardinality($1)]), array_fill('{}'::jsonb, array[cardinality($1)]),
    $3::text[]::jsonb[], $4::text[]::jsonb[]
)
