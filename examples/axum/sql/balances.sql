create table balances (account text primary key, owner text not null, cents bigint not null)
