-- Which store this is, in which cluster it is at home and in which one it is. One row.
select store_id, history, system_identifier, settled, annals.system_identifier() as cluster from annals.identity
