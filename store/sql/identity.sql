-- Reads the identity of the store, and the cluster of this session.
-- One row.
select store_id, history, system_identifier, settled, annals.system_identifier() as cluster from annals.identity
