//! Measures how fast this crate reads, decodes and projects, on the running development stack.
//!
//! `cargo bench -p annals-consumer` writes 500,000 events of about 300 bytes each to a topic of 4
//! partitions, in transactions as the relay does, and reads them back three times in each way. The
//! environment variables `EVENTS`, `STREAMS` and `BATCH` set other numbers of events, streams
//! (50,000) and events of a batch (2,000); `RUNNERS` adds a projection that so many runners share.
//! bench/README.md has the figures.
#![expect(clippy::unwrap_used, reason = "a measurement fails where it stands")]
#![expect(clippy::print_stdout, reason = "a measurement prints its figures")]

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annals_consumer::{
    Consumer, ConsumerSettings, DeliveredEvent, Projection, RunProgress, SchemaRegistry,
};
use annals_schemas::{EventSet, SchemaId, events, to_wire_format};
use futures_util::FutureExt;
use jiff::Timestamp;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, post_schema};
use schema_registry_converter::schema_registry_common::{SchemaType, SuppliedSchema};
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TRANSACTION_EVENTS: usize = 5_000;
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Serialize, Deserialize)]
struct OrderPlaced {
    amount: i64,
    note: String,
}

events! {
    /// The records to write and read.
    #[derive(Debug)]
    enum Orders in "order" {
        OrderPlaced = "../tests/avro/OrderPlaced.avsc",
    }
}

#[tokio::main]
async fn main() {
    let (events, streams) = (number("EVENTS", 500_000), number("STREAMS", 50_000));
    let batch = NonZeroUsize::new(number("BATCH", 2_000)).unwrap();
    let name = format!("throughput_{}", Uuid::now_v7().simple());
    let kafka = variable("ANNALS_KAFKA");
    let registry = variable("ANNALS_REGISTRY_URL");
    let pool = database(&name).await;
    let (admin, options) = admin(&kafka);
    let topic = NewTopic::new(&name, 4, TopicReplication::Fixed(1));
    admin.create_topics([&topic], &options).await.unwrap();
    let id = register(&registry).await;
    let (brokers, topic) = (kafka.clone(), name.clone());
    let bytes =
        tokio::task::spawn_blocking(move || write(&brokers, &topic, id, (events, streams))).await;
    println!(
        "{events} events over {streams} streams, batches of {batch}, values of {} bytes",
        bytes.unwrap()
    );

    for _ in 0..3 {
        let settings = ConsumerSettings::new(&kafka);
        let schemas = SchemaRegistry::new(&registry).unwrap();
        let server = DatabaseServer::of(&pool).await;
        let report = |what, work| report(&server, what, events, work);
        report("read to the end", read(settings.clone(), &name, None).boxed()).await;
        report("read and decoded", read(settings.clone(), &name, Some(&schemas)).boxed()).await;
        report("projection", project(&pool, &name, settings, (schemas.clone(), batch)).boxed())
            .await;
    }
    if let Ok(runners) = std::env::var("RUNNERS") {
        let (settings, schemas) = (ConsumerSettings::new(&kafka), SchemaRegistry::new(&registry));
        let runners = runners.parse().unwrap();
        let projection = prepared(&pool, &name, batch).await.shared();
        share(&projection, &pool, (settings, schemas.unwrap()), runners).await;
    }
    admin.delete_topics(&[&name], &options).await.unwrap();
    drop_database(pool, &name).await;
}

/// What the runners of a shared projection have applied.
#[derive(Debug)]
struct Shared {
    events: Vec<u64>,
    /// When all had applied something, and how many events by then.
    since: Option<(Instant, u64)>,
}

/// The rate of a shared projection from when each runner has a share until one has nothing left.
async fn share(
    projection: &Projection,
    pool: &PgPool,
    (settings, schemas): (ConsumerSettings, SchemaRegistry),
    runners: usize,
) {
    let shared = Arc::new(Mutex::new(Shared { events: vec![0; runners], since: None }));
    let ended = CancellationToken::new();
    let mut tasks = Vec::new();
    for number in 0..runners {
        let runner = projection.runner(pool, settings.clone(), schemas.clone());
        let (shared, ended) = (Arc::clone(&shared), ended.clone());
        tasks.push(tokio::spawn(async move {
            let hook = |progress: &RunProgress<'_>| shared.lock().unwrap().after(number, progress);
            let add = async |connection: &mut PgConnection, events: &[DeliveredEvent<Orders>]| {
                add(connection, events).await
            };
            runner.run_until(&ended, hook, add).await.unwrap();
            ended.cancel();
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
}

impl Shared {
    fn after(&mut self, runner: usize, progress: &RunProgress<'_>) -> ControlFlow<()> {
        self.events[runner] = progress.totals.events;
        let events: u64 = self.events.iter().sum();
        let Some((since, before)) = self.since else {
            let all = self.events.iter().all(|events| *events > 0);
            self.since = all.then(|| (Instant::now(), events));
            return ControlFlow::Continue(());
        };
        if !progress.caught_up {
            return ControlFlow::Continue(());
        }
        self.since = None;
        let (events, seconds) = (events - before, since.elapsed().as_secs_f64());
        let rate = f64::from(u32::try_from(events).unwrap()) / seconds;
        println!(
            "shared by {} runners {rate:>17.0} events/s, over {events} events",
            self.events.len()
        );
        ControlFlow::Break(())
    }
}

async fn report(
    server: &DatabaseServer,
    what: &str,
    events: usize,
    work: impl Future<Output = usize>,
) {
    let (start, own, servers) = (Instant::now(), cpu_seconds("self"), server.cpu_seconds());
    assert_eq!(work.await, events, "{what}");
    let seconds = start.elapsed().as_secs_f64();
    let (own, servers) = (cpu_seconds("self") - own, server.cpu_seconds() - servers);
    let events = f64::from(u32::try_from(events).unwrap());
    println!(
        "{what:30} {:>9.0} events/s; CPU of an event: {:.1} us here, {:.1} us in PostgreSQL",
        events / seconds,
        own / events * 1e6,
        servers / events * 1e6
    );
}

/// What a process has used of the processors, all threads, by the kernel's clock of 100 ticks a
/// second. It tells more than the rate where other programs share the machine.
fn cpu_seconds(process: &str) -> f64 {
    seconds(stat(process).skip(11).take(2))
}

fn seconds(ticks: impl Iterator<Item = String>) -> f64 {
    ticks.map(|ticks| ticks.parse::<f64>().unwrap()).sum::<f64>() / 100.0
}

/// What the kernel says of a process, behind its name.
fn stat(process: &str) -> impl Iterator<Item = String> {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.map(str::to_owned).collect::<Vec<_>>().into_iter()
}

/// The processes of the PostgreSQL server, on this machine.
struct DatabaseServer {
    parent: String,
}

impl DatabaseServer {
    async fn of(pool: &PgPool) -> Self {
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(pool).await.unwrap();
        Self { parent: stat(&pid.to_string()).nth(1).unwrap() }
    }

    /// Also of those that have ended, which the kernel adds to their parent some moments later:
    /// until two readings agree.
    fn cpu_seconds(&self) -> f64 {
        let mut last = self.read();
        loop {
            std::thread::sleep(Duration::from_millis(50));
            let next = self.read();
            if (next - last).abs() < 0.05 {
                return next;
            }
            last = next;
        }
    }

    fn read(&self) -> f64 {
        let processes = std::fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
        let processes = processes.filter_map(|name| name.into_string().ok());
        let of_server = processes.filter(|pid| stat(pid).nth(1).as_ref() == Some(&self.parent));
        let ended = seconds(stat(&self.parent).skip(13).take(2));
        ended + of_server.map(|pid| cpu_seconds(&pid)).sum::<f64>()
    }
}

async fn read(settings: ConsumerSettings, topic: &str, schemas: Option<&SchemaRegistry>) -> usize {
    let mut consumer = Consumer::connect(settings).read_to_end(&[topic]).await.unwrap();
    let mut count = 0;
    while let Some(record) = consumer.next().await.unwrap() {
        if let Some(schemas) = schemas {
            let Orders::OrderPlaced(placed) = record.decode(schemas).await.unwrap();
            assert!(placed.amount >= 0);
        }
        count += 1;
    }
    count
}

/// Keeps one row a stream.
async fn project(
    pool: &PgPool,
    topic: &str,
    settings: ConsumerSettings,
    (schemas, batch): (SchemaRegistry, NonZeroUsize),
) -> usize {
    let projection = prepared(pool, topic, batch).await;
    let totals = projection
        .runner(pool, settings, schemas)
        .run_until(
            &CancellationToken::new(),
            |progress| {
                if progress.caught_up { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
            async |connection: &mut PgConnection, events: &[DeliveredEvent<Orders>]| {
                add(connection, events).await
            },
        )
        .await
        .unwrap();
    usize::try_from(totals.events).unwrap()
}

/// A projection that has applied nothing.
async fn prepared(pool: &PgPool, topic: &str, batch: NonZeroUsize) -> Projection {
    let projection = Projection::new("bench", &[topic]).unwrap().batch_events_max(batch);
    projection.prepare(pool).await.unwrap();
    let mut transaction = pool.begin().await.unwrap();
    sqlx::raw_sql("truncate book").execute(&mut *transaction).await.unwrap();
    projection.forget(&mut transaction).await.unwrap();
    transaction.commit().await.unwrap();
    projection
}

async fn add(
    connection: &mut PgConnection,
    events: &[DeliveredEvent<Orders>],
) -> Result<(), sqlx::Error> {
    let streams: Vec<&str> = events.iter().map(|event| event.delivered.stream.as_str()).collect();
    let amounts = events.iter().map(|event| {
        let Orders::OrderPlaced(placed) = &event.data;
        placed.amount
    });
    let add = "insert into book select stream, count(*), sum(amount)::bigint \
               from unnest($1::text[], $2::bigint[]) as e (stream, amount) group by stream \
               on conflict (stream) do update set events = book.events + excluded.events, \
               amount = book.amount + excluded.amount";
    sqlx::query(add).bind(streams).bind(amounts.collect::<Vec<_>>()).execute(connection).await?;
    Ok(())
}

/// Writes the events and returns how long the value of one is.
fn write(brokers: &str, topic: &str, id: SchemaId, (events, streams): (usize, usize)) -> usize {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", topic)
        .set("queue.buffering.max.messages", "200000")
        .set("partitioner", "murmur2_random")
        .create()
        .unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    let mut bytes = 0;
    for start in (0..events).step_by(TRANSACTION_EVENTS) {
        producer.begin_transaction().unwrap();
        for number in start..events.min(start + TRANSACTION_EVENTS) {
            bytes = write_one(&producer, topic, id, (number % streams, number / streams, number));
        }
        while producer.in_flight_count() > 0 {
            producer.poll(Duration::from_millis(1));
        }
        producer.commit_transaction(PATIENCE).unwrap();
    }
    bytes
}

fn write_one(
    producer: &BaseProducer,
    topic: &str,
    id: SchemaId,
    (stream, version, number): (usize, usize, usize),
) -> usize {
    let amount = i64::try_from(number).unwrap();
    let event = Orders::from(OrderPlaced { amount, note: "n".repeat(290) });
    let value = to_wire_format(id, &event.encode().unwrap().payload);
    let stream = format!("order-{stream}");
    let headers = [
        ("ce_specversion", "1.0".to_owned()),
        ("ce_id", Uuid::now_v7().to_string()),
        ("ce_source", "annals://bench".to_owned()),
        ("ce_type", "shop.OrderPlaced".to_owned()),
        ("ce_dataschema", "http://registry.test/schemas/ids/0".to_owned()),
        ("ce_subject", stream.clone()),
        ("ce_time", Timestamp::now().to_string()),
        ("ce_streamversion", version.to_string()),
        ("ce_position", number.to_string()),
        ("content-type", "application/vnd.confluent.avro".to_owned()),
    ];
    let headers = headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(value) })
    });
    let record = BaseRecord::to(topic).key(&stream).payload(&value).headers(headers);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    value.len()
}

fn admin(brokers: &str) -> (AdminClient<DefaultClientContext>, AdminOptions) {
    let client = ClientConfig::new().set("bootstrap.servers", brokers).create().unwrap();
    (client, AdminOptions::new().operation_timeout(Some(PATIENCE)))
}

async fn register(registry: &str) -> SchemaId {
    let (_, schema) = Orders::schemas().unwrap()[0];
    let supplied = SuppliedSchema::new(
        Some(schema.full_name().to_owned()),
        SchemaType::Avro,
        schema.definition().to_owned(),
    );
    let settings = SrSettings::new(registry.to_owned());
    let subject = "consumer-throughput".to_owned();
    SchemaId(post_schema(&settings, subject, supplied).await.unwrap().id)
}

async fn database(name: &str) -> PgPool {
    let admin_url = variable("ANNALS_DATABASE_URL");
    let admin = PgPool::connect(&admin_url).await.unwrap();
    let create = AssertSqlSafe(format!("create database {name}"));
    sqlx::raw_sql(create).execute(&admin).await.unwrap();
    let (server, _) = admin_url.rsplit_once('/').unwrap();
    let pool = PgPool::connect(&format!("{server}/{name}")).await.unwrap();
    let create = "create table book (stream text primary key, events bigint, amount bigint) \
                  with (fillfactor = 45)";
    sqlx::raw_sql(create).execute(&pool).await.unwrap();
    pool
}

async fn drop_database(pool: PgPool, name: &str) {
    pool.close().await;
    let admin = PgPool::connect(&variable("ANNALS_DATABASE_URL")).await.unwrap();
    let remove = AssertSqlSafe(format!("drop database {name} with (force)"));
    sqlx::raw_sql(remove).execute(&admin).await.unwrap();
}

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run make up and eval \"$(ops/dev/dev env)\"")
    })
}
