-- What each consumer must arrive at, from the events themselves: one row, one JSON object.
with events as (
    select
        e.stream,
        e.event_type,
        e.recorded_at,
        (e.data ->> 'cents')::bigint as cents,
        case e.event_type
            when 'MoneyPaidIn' then 1 when 'TransferReceived' then 1
            when 'MoneyWithdrawn' then -1 when 'TransferSent' then -1
            else 0
        end as sign
    from annals.events e
    where e.category = 'bank_account'
)
select json_build_object(
    'count', (select count(*) from events),
    'balances', (
        select json_object_agg(b.stream, b.cents) from (
            select stream, coalesce(sum(sign * cents), 0) as cents from events group by stream
        ) b
    ),
    'types', (
        select json_object_agg(t.event_type, json_build_array(t.events, t.cents)) from (
            select event_type, count(*) as events, coalesce(sum(cents), 0) as cents from events group by event_type
        ) t
    ),
    'windows', (
        select json_object_agg(w.start || ' ' || w.event_type, json_build_array(w.events, w.cents)) from (
            select
                to_char(date_trunc('second', recorded_at at time zone 'UTC'), 'YYYY-MM-DD HH24:MI:SS') as start,
                event_type, count(*) as events, sum(cents) as cents
            from events
            where event_type in ('MoneyPaidIn', 'MoneyWithdrawn')
            group by 1, 2
        ) w
    )
)
