-- The lowest position that a window can contain, for reading it by position.
-- $1 snapshot, $2 next transaction id and $3 position at the window's begin.
--
-- A transaction that began to write after the window's begin drew its positions after it, so above $3.
-- One that ran then (named in the snapshot, or between its xmax and $2) may have drawn lower ones.
select least($3, min(late.position) - 1) as position
from annals.outbox late
where late.xid = any (array(select pg_snapshot_xip($1::pg_snapshot)))
    or late.xid >= pg_snapshot_xmax($1::pg_snapshot) and late.xid < $2::text::xid8
