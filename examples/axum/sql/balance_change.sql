-- Applies an event. $1 account, $2 owner (null: unchanged), $3 cents.
insert into balances as b (account, owner, cents) values ($1, coalesce($2, ''), $3)
on conflict (account) do update set owner = coalesce($2, b.owner), cents = b.cents + excluded.cents
