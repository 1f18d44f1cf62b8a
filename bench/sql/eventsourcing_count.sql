-- Counts the events of the Python package; none before it has made its table.
select count(*) as events from public.stored_events
