-- Plants a definition that is none. $1 fingerprint.
insert into annals.schemas (fingerprint, category, full_name, definition) values ($1, 'account', 'wrong.Wrong', 'this is no schema')
