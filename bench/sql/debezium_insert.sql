-- Writes a row of Debezium's table.
-- $1 id, $2 key, $3 type, $4 value without the registry's prefix.
insert into public.outbox (id, aggregatetype, aggregateid, type, payload)
values ($1, 'parcel', $2, $3, '\x0000000001'::bytea || $4)
