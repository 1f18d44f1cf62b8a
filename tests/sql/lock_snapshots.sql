-- Readers pass, writers wait.
lock table annals.snapshots in share mode
