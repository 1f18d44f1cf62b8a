-- Reads the entries that an operator asked to retry. $1 deployment.
select entry from annals.relay_quarantine where deployment = $1 and is_retry_requested
