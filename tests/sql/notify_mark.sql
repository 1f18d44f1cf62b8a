-- Notifies followers as a hint does, with a mark.
select pg_notify('annals_appended', 'mark')
