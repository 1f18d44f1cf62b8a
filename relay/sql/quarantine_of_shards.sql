-- Reads the quarantine entries of shards, oldest first. $1 deployment, $2 shards.
select entry, shard, kind, name, cause, cursor from annals.relay_quarantine
where deployment = $1 and shard = any ($2)
order by entry
