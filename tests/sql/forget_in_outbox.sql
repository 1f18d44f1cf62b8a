-- Plants a fault: takes an event out of the outbox before it is published. $1 event id.
delete from annals.outbox where position = (select position from annals.events where event_id = $1)
