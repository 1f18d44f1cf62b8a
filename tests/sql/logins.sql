-- What an administrator gives to a service and to a relay.
create role service login in role annals_append;
create role publisher login in role annals_relay;
