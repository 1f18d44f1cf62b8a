-- Changes the number of shards of the installation. $1 number.
select annals.relay_reshard($1)
