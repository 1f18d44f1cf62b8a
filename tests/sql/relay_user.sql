-- A user of the relay's own, who has to give a password.
create role relay login password 'canary_first' in role annals_relay;
copy (
    select * from unnest(array['host all relay 127.0.0.1/32 scram-sha-256', 'host all all 127.0.0.1/32 trust'])
) to program 'cat > pg_hba.conf';
select pg_reload_conf();
