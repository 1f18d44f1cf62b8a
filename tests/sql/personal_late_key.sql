-- A process that wrapped a key before an erasure and stores it behind it. $1 subject, $2 key id.
select found_wrapped is null and is_erased from annals.personal_key_create($1, $2, '\x01', 1)
