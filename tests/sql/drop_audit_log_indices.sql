-- Drops what only reads by correlation and causation need.
drop index annals.events_correlation;
drop index annals.events_causation;
