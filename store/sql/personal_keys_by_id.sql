-- Keys by their ids. $1 key ids. No row for an id: it is unknown.
select subject, key_id, wrapped, fenced_at is not null as is_erased from annals.personal_keys where key_id = any ($1)
