-- Drops a replication slot unless somebody still reads from it; one row, whether there is one of
-- the name now. $1 its name.
with dropped as materialized (
    select s.active, case when not s.active then pg_drop_replication_slot(s.slot_name) end as gone
    from pg_replication_slots s where s.slot_name = $1
)
select coalesce((select active from dropped), false)
