-- The subjects whose erasure has begun and has not finished, with its reason. $1 the number of
-- rows.
select k.subject, k.reason
from annals.personal_keys k
where k.fenced_at is not null
    and (k.destroyed_at is null or not exists (select from annals.events e where e.event_id = k.erased_event))
order by k.subject
limit $1
