-- The second step of an erasure, as before a crash. $1 subject.
select annals.personal_destroy($1)
