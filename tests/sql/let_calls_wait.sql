-- Lets calls of several appends wait for locks of tables, for as long as an append alone.
alter function annals.append_each set lock_timeout = 0
