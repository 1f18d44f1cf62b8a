-- Records the registry id of a schema. A recorded id stays: events were published with it.
-- $1 subject, $2 fingerprint, $3 id.
insert into annals.relay_schema_ids (subject, fingerprint, id)
values ($1, $2, $3)
on conflict (subject, fingerprint) do nothing
