-- Whether the server waits for its disk at all: `on` or `off`.
select current_setting('fsync')
