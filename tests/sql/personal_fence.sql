-- The first step of an erasure, as before a crash. $1 subject.
select annals.personal_fence($1, 'a crash follows')
