-- How many streams and categories are held. $1 deployment. One row.
select count(distinct (kind, name)) as held from annals.relay_holds where deployment = $1
