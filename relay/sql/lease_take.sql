-- Takes the deployment's lease, if nobody holds it or its time is over. The database's clock decides.
-- $1 deployment, $2 instance, $3 session, $4 lease in milliseconds, $5 whether this session is the first
-- of its process: then the instance's earlier process is gone, and its lease can be taken at once.
-- One row: the new epoch. No row: another session holds the lease.
insert into annals.relay_leases as l (deployment, instance, session, epoch, taken_at, expires_at)
values ($1, $2, $3, 1, now(), now() + $4 * interval '1 millisecond')
on conflict (deployment) do update set
    instance = excluded.instance,
    session = excluded.session,
    epoch = l.epoch + 1,
    taken_at = excluded.taken_at,
    expires_at = excluded.expires_at
where l.expires_at <= now() or ($5 and l.instance = excluded.instance)
returning epoch
