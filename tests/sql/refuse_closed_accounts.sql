-- Makes the server report an error for each event of one type.
alter table annals.events add constraint no_closed_accounts check (event_type <> 'AccountClosed')
