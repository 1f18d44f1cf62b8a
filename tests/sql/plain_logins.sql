-- Logins without the right to create anything.
create role plain_owner login;
create role service login;
create role publisher login;
