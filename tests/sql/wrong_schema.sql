-- Plants a definition that is none. $1 fingerprint.
insert into annals.schemas (fingerprint, full_name, definition) values ($1, 'wrong.Wrong', 'this is no schema')
