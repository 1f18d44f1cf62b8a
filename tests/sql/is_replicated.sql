-- Whether all tables are copied and followed, with so many events. $1 how many.
select
    not exists (select from pg_subscription_rel where srsubstate <> 'r')
    and exists (select from pg_subscription_rel)
    and (select count(*) from annals.events) = $1
