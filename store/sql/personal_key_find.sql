-- The key of a subject. $1 subject. No row: it has none.
select key_id, wrapped, fenced_at is not null as is_erased from annals.personal_keys where subject = $1
