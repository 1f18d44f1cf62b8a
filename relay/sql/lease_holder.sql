-- Who holds the deployment's lease. $1 deployment. No row: nobody ever did.
select instance, epoch, greatest(0, (extract(epoch from expires_at - now()) * 1000)::bigint) as remaining_ms
from annals.relay_leases where deployment = $1
