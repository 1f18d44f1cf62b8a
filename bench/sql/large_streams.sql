-- The streams of a large store, in three categories. $1 how many.
insert into annals.streams (name, category, version_min)
select s.category || '-' || s.number, s.category, 0
from (
    select i as number, case when i < $1 * 16 / 20 then 'parcel' when i < $1 * 19 / 20 then 'pallet' else 'crate' end as category
    from generate_series(0, $1::bigint - 1) i
) s
