-- Writes outbox rows for positions from $1 to $2.
insert into annals.outbox (position, shard) select i, mod(i, 8) from generate_series($1::bigint, $2::bigint) i
