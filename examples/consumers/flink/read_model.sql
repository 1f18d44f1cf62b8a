-- What Flink writes into, in PostgreSQL.
create table turnover (
    second_begins timestamp not null,
    event_type text not null,
    events bigint not null,
    cents bigint not null,
    primary key (second_begins, event_type)
);
create table balances (
    account text primary key,
    cents bigint not null
);
