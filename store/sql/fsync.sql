-- Reads whether the server waits for its disk: `on` or `off`.
select current_setting('fsync')
