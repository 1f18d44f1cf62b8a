-- Lists the statements that give a role what a purpose needs.
select annals.grants_for($1, $2)
