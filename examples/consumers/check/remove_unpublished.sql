-- Removes events behind a position, as an administrator does: of some streams one event each, which has another one behind
-- it. Parameter: the position.
with doomed as (
    select distinct on (e.stream) e.stream, e.version
    from annals.events e
    where e.category = 'bank_account' and e.version > 0 and e.position > %(behind)s
        and exists (select from annals.events n where n.stream = e.stream and n.version = e.version + 1)
    order by e.stream, e.version
    limit 20
)
delete from annals.events e using doomed d
where e.stream = d.stream and e.version = d.version
returning e.stream, e.version
