-- Takes the lease of a version of a projection over, also from a runner that has it: that one
-- cannot commit any more. $1 projection, $2 version, $3 owner, $4 duration in milliseconds.
-- No row: there is no such version.
update annals.projections
set owner = $3, epoch = epoch + 1, lease_until = clock_timestamp() + $4 * interval '1 millisecond',
    lease = $4 * interval '1 millisecond'
where name = $1 and version = $2
returning epoch
