-- What is held, categories once. $1 deployment.
select
    kind, name, min(cause) as cause, min(reason) as reason, min(position) as position, max(attempts) as attempts,
    bool_or(is_wanted) as is_wanted,
    (extract(epoch from min(held_at)) * 1000000)::bigint as held_us
from annals.relay_holds where deployment = $1
group by kind, name
order by min(hold)
