create table customers (key_id bytea primary key, name text not null)
