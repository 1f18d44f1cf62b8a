-- How often a session of the deployment lost its shards: each loss raises their epochs, and so does
-- each taking.
select max(epoch) as epochs from annals.relay_shards
