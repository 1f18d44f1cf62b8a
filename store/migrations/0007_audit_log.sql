-- The audit log, for people: with the events of archived streams.

create view annals.event_log as
select
    e.position, e.recorded_at, e.stream, e.version, e.event_id, e.category, e.event_type,
    e.metadata ->> 'actor' as actor,
    e.metadata ->> 'correlation_id' as correlation_id,
    e.metadata ->> 'causation_id' as causation_id,
    e.data, e.metadata, e.headers
from annals.all_events e;
comment on view annals.event_log is 'all events with their origin; begin a period at position_at(time)';

-- The events that led to an event, and all that resulted from the first of these: in depth-first
-- order, with the depth in the tree. The events of one command have the same cause, which is no
-- event: the tree has them all.
create function annals.causal_tree(of_event uuid, events_max int default 10000)
returns table (
    depth int, "position" bigint, stream text, version bigint, event_id uuid, event_type text, recorded_at timestamptz, actor text
)
language sql stable
set search_path = annals, pg_temp
as $$
    with recursive up as (
        select e.position, e.event_id, e.metadata ->> 'causation_id' as cause, 0 as height
        from all_events e
        where e.event_id = of_event
        union all
        select c.position, c.event_id, c.metadata ->> 'causation_id', u.height + 1
        from up u join all_events c on c.event_id = u.cause::uuid
        where u.height < 1000
    ),
    first_event as (
        select u.position, u.event_id, u.cause from up u order by u.height desc limit 1
    ),
    down as (
        select e.position, e.event_id, 0 as depth, array[e.position] as path
        from first_event f
        join all_events e on e.metadata ->> 'causation_id' = f.cause
        where f.cause is not null
        union all
        select f.position, f.event_id, 0, array[f.position] from first_event f where f.cause is null
        union all
        select e.position, e.event_id, d.depth + 1, d.path || e.position
        from down d join all_events e on e.metadata ->> 'causation_id' = d.event_id::text
        where d.depth < 1000 and e.position <> all (d.path)
    )
    select d.depth, e.position, e.stream, e.version, e.event_id, e.event_type, e.recorded_at, e.metadata ->> 'actor'
    from down d join all_events e on e.position = d.position
    order by d.path
    limit events_max
$$;
