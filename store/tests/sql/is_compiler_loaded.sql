-- Whether the process of this session has loaded the library that compiles plans. One row.
select pg_read_file('/proc/self/maps') like '%llvmjit%'
