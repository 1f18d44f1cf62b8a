-- Whether events exist that a deployment does not publish: an operator skipped them, or an
-- administrator removed them. $1 deployment. One row.
select
    exists (select from annals.relay_skipped s where s.deployment = $1 and s.stream is not null)
    or exists (select from annals.removed_events)
