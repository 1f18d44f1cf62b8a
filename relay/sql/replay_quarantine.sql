-- Reads the quarantine of a deployment. $1 deployment. One row each entry.
select entry, shard, kind, name, cursor from annals.relay_quarantine where deployment = $1
