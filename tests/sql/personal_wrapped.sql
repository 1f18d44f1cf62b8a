-- The wrapped key of a subject, as a backup has it. $1 subject.
select wrapped from annals.personal_keys where subject = $1
