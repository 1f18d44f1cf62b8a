-- Reads a relay's checkpoint at the present end of the log. Always one row.
select annals.relay_checkpoint_now()::text as checkpoint
