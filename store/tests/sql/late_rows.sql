-- 20,000 outbox rows of transactions 200,000 to 219,999, a row each, the lowest position in the last
-- one; and 580,000 rows of transaction 300,000.
insert into annals.outbox (position, shard, xid)
select 120001 - i, mod(i, 8), (199999 + i)::text::xid8 from generate_series(1, 20000) i;
insert into annals.outbox (position, shard, xid)
select i, mod(i, 8), '300000'::xid8 from generate_series(120001, 700000) i;
analyze annals.outbox;
