-- Lists the statements that delete a database schema with its tables. $1 schema.
-- No row: there is none.
select format('drop schema %I cascade', $1::text) as statement
where to_regnamespace(quote_ident($1)) is not null
