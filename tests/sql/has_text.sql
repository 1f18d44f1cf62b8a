-- Whether any stored event or snapshot contains these bytes. $1 bytes.
select exists (
    select from annals.events e
    where position($1 in e.payload) > 0 or position($1 in convert_to(e.data::text || e.metadata::text || e.headers::text, 'UTF8')) > 0
) or exists (select from annals.snapshots s where position($1 in s.state) > 0)
