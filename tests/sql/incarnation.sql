-- What changes with each restart of the server, promotion, restore and adoption.
select annals.incarnation()
