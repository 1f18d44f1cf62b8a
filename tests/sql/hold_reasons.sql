-- Why each hold is there.
select reason from annals.relay_holds order by hold
