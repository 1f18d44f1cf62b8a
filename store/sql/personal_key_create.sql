-- Gives a subject its first key, or returns the one that it has. $1 subject, $2 key id, $3 wrapped
-- secret, $4 epoch. No row: the wrapping key was rotated.
select found_key_id as key_id, found_wrapped as wrapped, is_erased from annals.personal_key_create($1, $2, $3, $4)
