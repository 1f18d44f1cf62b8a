-- Writes everything to disk, so that the next checkpoint is as far away as it can be.
checkpoint
