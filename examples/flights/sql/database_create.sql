-- Creates the database of a run, whose name stands in for annals_demo_run. Fails if there is one of that name.
create database annals_demo_run
