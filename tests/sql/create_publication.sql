-- Everything that is written here can be subscribed to.
create publication everything for all tables
