-- Notes a customer's name.
insert into customers values ($1, $2) on conflict (key_id) do update set name = excluded.name
