-- What is held in these shards, in the order in which it was. $1 deployment, $2 shards.
select hold, shard, kind, name, place from annals.relay_holds
where deployment = $1 and shard = any ($2)
order by hold
