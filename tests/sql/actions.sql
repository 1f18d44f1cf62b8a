-- What people did about what is held, in order.
select verb, name, position, reason, done_by from annals.relay_actions order by action
