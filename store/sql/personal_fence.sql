-- Begins an erasure. $1 subject, $2 reason.
select key_id, erased_event, fenced_at from annals.personal_fence($1, $2)
