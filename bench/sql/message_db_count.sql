-- Counts the messages of Message DB. Always one row.
select count(*) as events from message_store.messages
