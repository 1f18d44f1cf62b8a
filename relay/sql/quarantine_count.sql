-- Counts the quarantined streams and categories. $1 deployment. One row.
select count(distinct (kind, name)) as quarantined from annals.relay_quarantine where deployment = $1
