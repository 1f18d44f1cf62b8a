-- Applies a batch to the read model of parcels. $1 streams, $2 their scans, $3 their weights.
insert into parcels as p (stream, scans, weight_g)
select * from unnest($1::text[], $2::bigint[], $3::bigint[])
on conflict (stream) do update set scans = p.scans + excluded.scans, weight_g = excluded.weight_g
