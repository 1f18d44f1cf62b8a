-- Which holds somebody asked to try again. $1 deployment.
select hold from annals.relay_holds where deployment = $1 and is_wanted
