-- As a database that was put together by hand: nothing checks definitions.
alter table annals.schemas drop constraint schemas_fingerprint, drop constraint schemas_record
