-- Reads where the server keeps its files. Always one row.
select current_setting('data_directory') as directory
