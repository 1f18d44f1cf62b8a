-- The tables of the tests' projection.
create table balances (account text primary key, cents bigint not null);
create table balance_events (number bigint generated always as identity, stream text not null, version bigint not null, event_id uuid not null)
