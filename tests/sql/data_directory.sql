-- Where the server keeps its data: its process id stands in a file there.
select current_setting('data_directory')
