-- Lists the statements that create a database schema. $1 schema.
-- No row: it exists. A role without the right to create schemas can use one that exists.
select format('create schema %I', $1::text) as statement
where to_regnamespace(quote_ident($1)) is null
