-- Lists the transactions that have been open longest of those that can still write: their events,
-- and with them partitions of the outbox, wait for their ends. $1 the most rows.
-- `query` is without the comments at its begin. `since_us` and `query` of other users' sessions are
-- null without the role pg_read_all_stats.
-- No row: none is open.
select
    pid, login, application, client, state, since_us, age_seconds, query
from (
    select
        a.pid, a.usename::text as login, a.application_name as application, a.client_addr::text as client, a.state,
        (extract(epoch from a.xact_start) * 1000000)::bigint as since_us,
        extract(epoch from clock_timestamp() - a.xact_start)::double precision as age_seconds,
        case when a.xact_start is not null then left(regexp_replace(a.query, '^([[:space:]]*--[^' || chr(10) || ']*' || chr(10) || ')+', ''), 200) end as query,
        a.backend_xid::text::bigint as xid
    from pg_stat_activity a
    where a.backend_xid is not null and a.pid <> pg_backend_pid() and a.datname = current_database()
    union all
    select
        null, p.owner::text, 'prepared transaction ' || p.gid, null, 'prepared',
        (extract(epoch from p.prepared) * 1000000)::bigint,
        extract(epoch from clock_timestamp() - p.prepared)::double precision,
        null, p.transaction::text::bigint
    from pg_prepared_xacts p
    where p.database = current_database()
) t
order by age_seconds desc nulls last, xid
limit $1
