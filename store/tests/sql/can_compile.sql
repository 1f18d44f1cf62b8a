-- Whether the server can compile plans; this loads the library. One row.
select pg_jit_available()
