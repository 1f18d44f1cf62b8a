-- Reads the relays of a deployment that run, or have reported in the last minute that they wait,
-- one row each. $1 deployment.
-- `report` is null if the relay has not reported yet.
select
    coalesce(s.instance, r.instance) as instance,
    (extract(epoch from s.joined_at) * 1000000)::bigint as joined_us,
    coalesce(s.is_ready, false) as is_ready, r.report::text as report,
    extract(epoch from now() - r.reported_at)::double precision as report_age_seconds
from (
    select * from annals.relay_sessions s where s.deployment = $1 and s.expires_at > now()
) s
full join (
    select * from annals.relay_reports r where r.deployment = $1 and r.reported_at > now() - interval '1 minute'
) r on r.instance = s.instance
where s.session is not null or r.report ->> 'status' <> 'stopping'
order by 1
