-- Applies an event to a balance, not idempotently. $1 stream, $2 version, $3 event id, $4 cents.
with applied as (
    insert into balance_events (stream, version, event_id) values ($1, $2, $3)
)
insert into balances as b (account, cents) values ($1, $4)
on conflict (account) do update set cents = b.cents + excluded.cents
