-- Records how far an audit proved the events of a deployment. $1 deployment, $2 position,
-- $3 partitions, $4 the next transaction id when the audit began.
-- One row: the recorded position. It stays the earlier one while a transaction runs that ran when
-- the audit began: its events can still appear at lower positions.
select annals.relay_record_audit($1, $2, $3, $4) as proven
