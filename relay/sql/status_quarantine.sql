-- Counts the quarantined streams and categories, by kind and cause. $1 deployment.
-- No row: nothing is quarantined.
select
    kind, cause, count(distinct name) as entries,
    extract(epoch from now() - min(quarantined_at))::double precision as age_seconds
from annals.relay_quarantine where deployment = $1
group by kind, cause
order by kind, cause
