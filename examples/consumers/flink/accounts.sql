-- Two projections of a category of several event types: turnover a second by type, and the balance
-- of each account. `${...}` are variables of the environment; everything else runs in Flink's SQL
-- client as it is. A statement ends with an empty line.

set 'execution.checkpointing.interval' = '500 ms';

set 'execution.checkpointing.mode' = 'EXACTLY_ONCE';

-- No 'table.exec.source.idle-timeout': a partition that is read late would not hold the windows
-- back, and its events would come too late for them and be dropped.

set 'table.local-time-zone' = 'UTC';

-- The whole topic as one wide table: the columns are the fields of all event types together, null
-- where an event has no such field. Fields go by name: two event types with one name for two types
-- need a table each.
create table account_records (
  account string,
  owner string,
  cents bigint,
  `to` string,
  `from` string,
  headers map<string, bytes> metadata virtual,
  recorded_at timestamp_ltz(3) metadata from 'timestamp' virtual,
  -- The last part of the full name.
  event_type as regexp_extract(decode(headers['ce_type'], 'UTF-8'), '[^.]+$'),
  version as cast(decode(headers['ce_streamversion'], 'UTF-8') as bigint),
  arrived as proctime(),
  watermark for recorded_at as recorded_at - interval '10' second
) with (
  'connector' = 'kafka',
  'topic' = '${ANNALS_TOPIC}',
  'properties.bootstrap.servers' = '${ANNALS_KAFKA}',
  'properties.group.id' = 'flink-accounts',
  -- Flink's Kafka source is a Java client: it reads aborted transactions unless told otherwise.
  'properties.isolation.level' = 'read_committed',
  'scan.startup.mode' = 'earliest-offset',
  'scan.bounded.mode' = '${SCAN_BOUNDED_MODE}',
  'key.format' = 'raw',
  'key.fields' = 'account',
  'value.format' = 'avro-confluent',
  'value.avro-confluent.url' = '${ANNALS_REGISTRY_URL}',
  'value.fields-include' = 'EXCEPT_KEY'
);

-- The version filter, as Flink has it: the first record of each version of a stream counts. The
-- state is one key an event; with 'table.exec.state.ttl' it is kept for as long as repetitions can
-- take to come.
create temporary view account_events as
select account, event_type, cents, recorded_at from (
  select *, row_number() over (partition by account, version order by arrived) as repetition
  from account_records
  where version is not null
)
where repetition = 1;

create table turnover (
  second_begins timestamp(3),
  event_type string,
  events bigint,
  cents bigint,
  primary key (second_begins, event_type) not enforced
) with (
  'connector' = 'jdbc', 'url' = '${JDBC_URL}', 'table-name' = 'turnover',
  'username' = '${DATABASE_USER}', 'password' = '${DATABASE_PASSWORD}'
);

create table balances (
  account string,
  cents bigint,
  primary key (account) not enforced
) with (
  'connector' = 'jdbc', 'url' = '${JDBC_URL}', 'table-name' = 'balances',
  'username' = '${DATABASE_USER}', 'password' = '${DATABASE_PASSWORD}'
);

execute statement set
begin
insert into turnover
select window_start, event_type, count(*), sum(cents)
from tumble(table account_events, descriptor(recorded_at), interval '1' second)
where event_type in ('MoneyPaidIn', 'MoneyWithdrawn')
group by window_start, window_end, event_type;
insert into balances
select
  account,
  coalesce(sum(case
    when event_type in ('MoneyPaidIn', 'TransferReceived') then cents
    when event_type in ('MoneyWithdrawn', 'TransferSent') then -cents
    else 0
  end), 0)
from account_events
group by account;
end;
