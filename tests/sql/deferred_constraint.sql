-- Refuses each event of one type when its transaction is about to be committed.
create function refuse_event() returns trigger language plpgsql as $$
begin
    raise exception 'not today' using errcode = 'check_violation';
end
$$;
create constraint trigger refuse_event after insert on annals.events deferrable initially deferred
for each row when (new.event_type = 'AccountClosed') execute function refuse_event()
