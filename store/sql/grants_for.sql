-- Lists the statements that give a role the rights for a purpose.
select annals.grants_for($1, $2)
