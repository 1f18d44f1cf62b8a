-- Finds the snapshot of a stream.
-- $1 stream, $2 fingerprint of the state's schema.
-- No row: there is no snapshot, or it is not valid: an administrator removed one of its events, or
-- the database lost them.
select p.version, p.removed, p.state
from annals.snapshots p join annals.streams s on s.name = p.stream and greatest(s.version_min, (
    select e.version from annals.events e where e.stream = s.name order by e.version desc limit 1
)) >= p.version
where p.stream = $1 and p.fingerprint = $2
    and p.removed = (select count(*) from annals.removed_events r where r.stream = p.stream and r.version <= p.version)
