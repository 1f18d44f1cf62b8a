-- What Debezium's outbox router publishes from: its table, by its own names, and the publication of
-- its inserts.
create table public.outbox (
    id uuid primary key,
    aggregatetype text not null,
    aggregateid text not null,
    type text not null,
    payload bytea not null
);
create publication bench_outbox for table public.outbox with (publish = 'insert');
