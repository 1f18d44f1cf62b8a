-- Leaves transactional ids to the next owner of shard 0. $1 ids.
update annals.relay_shards set fence = $1 where shard = 0
