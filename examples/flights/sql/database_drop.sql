-- Drops the database of an earlier run, whose name stands in for annals_demo_run. Fails while somebody is connected.
drop database annals_demo_run
