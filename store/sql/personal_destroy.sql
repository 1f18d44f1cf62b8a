-- Destroys the key of a fenced subject. $1 subject. False: there is none.
select annals.personal_destroy($1)
