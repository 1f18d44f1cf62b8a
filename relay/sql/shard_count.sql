-- How many shards the installation has: one row.
select annals.shard_count() as shards
