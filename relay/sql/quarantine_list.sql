-- Lists the quarantine, each category once. $1 deployment.
select
    kind, name, min(cause) as cause, min(reason) as reason, min(position) as position, max(attempts) as attempts,
    bool_or(is_retry_requested) as is_retry_requested,
    (extract(epoch from min(quarantined_at)) * 1000000)::bigint as quarantined_us
from annals.relay_quarantine where deployment = $1
group by kind, name
order by min(entry)
