-- Lets no relay copy its checkpoints until the connection ends; they are read all the same.
begin;
lock table annals.relay_checkpoints in exclusive mode;
