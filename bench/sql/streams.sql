-- Streams that exist, with no event to publish before the first one that is measured. $1 how many.
insert into annals.streams (name, category, version_min)
select 'parcel-' || s.number, 'parcel', 0 from generate_series(0, $1 - 1) as s (number)
