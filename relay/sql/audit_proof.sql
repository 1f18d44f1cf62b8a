-- Reads how far the last audit of a deployment proved its events. $1 deployment. No row: there is
-- none of this history.
select a.proven, a.partitions from annals.relay_audits a
join annals.identity i on i.is_only and i.store_id = a.store_id and i.history = a.history
where a.deployment = $1
