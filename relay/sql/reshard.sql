-- Changes the number of shards of the installation. $1 how many.
select annals.relay_reshard($1)
