-- The reason of each quarantine entry.
select reason from annals.relay_quarantine order by entry
