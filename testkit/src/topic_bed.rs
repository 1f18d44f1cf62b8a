//! A database and topics of a test's own, whose records the test writes itself, without a relay.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use annals_consumer::{Consumer, ConsumerSettings, Delivered, Projection, Runner, SchemaRegistry};
use annals_schemas::{EventSet, Framing, Schema, SchemaId, to_wire_format};
use jiff::Timestamp;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, post_schema};
use schema_registry_converter::schema_registry_common::{SchemaType, SuppliedSchema};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::environment::{Environment, is_kept};
use crate::follow::DEADLINE;
use crate::kafka::{
    RawRecord, add_partitions, create_topic, delete_topic, delete_topics, write_records,
};
use crate::must::Must;
use crate::postgres::{administer, create_database};
use crate::until::in_time;

/// The schemas that this process has registered, by subject: once for all tests, since the registry
/// refuses a subject that two programs make at the same moment.
static REGISTERED: Mutex<BTreeMap<String, SchemaId>> = Mutex::const_new(BTreeMap::new());

/// A database and topics that no other test uses. A test writes their records itself, as a relay
/// would or wrong on purpose.
///
/// All of it is removed at the end, except after a panic or with `ANNALS_TEST_KEEP` set.
#[expect(missing_debug_implementations, reason = "a producer has none")]
pub struct TopicBed {
    /// `host:port`.
    pub brokers: String,
    /// The registry's URL.
    pub registry_url: String,
    /// The database's URL.
    pub database_url: String,
    /// Differs for each test: topics, the database and transactional ids begin with it.
    pub name: String,
    /// Connections to the database.
    pub pool: PgPool,
    /// An idempotent producer.
    pub producer: FutureProducer,
    schema_ids: HashMap<&'static str, SchemaId>,
    position: AtomicI64,
}

/// A record as the relay would write it, to be changed by tests that want it wrong.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The record's key.
    pub key: String,
    /// The record's value.
    pub value: Vec<u8>,
    /// Names and values, in order.
    pub headers: Vec<(String, String)>,
}

impl TopicBed {
    /// Creates the database and registers the set's schemas; a test creates its topics.
    ///
    /// # Panics
    /// If the environment is not set or does not answer.
    pub async fn new<E: EventSet>() -> Self {
        let Environment { kafka: brokers, registry_url, .. } = Environment::get().clone();
        let name = format!("consumer_test_{}", Uuid::new_v4().simple());
        create_database(Environment::get(), &name).await;
        let database_url = Environment::get().url_of_database(&name);
        // Without idempotence a producer may reorder retried records.
        let mut producer = ClientConfig::new();
        producer.set("bootstrap.servers", &brokers).set("enable.idempotence", "true");
        Self {
            pool: PgPool::connect(&database_url).await.must("connect to the test's database"),
            producer: producer.create().must("make a producer"),
            schema_ids: register::<E>(&registry_url).await,
            position: AtomicI64::new(0),
            brokers,
            registry_url,
            database_url,
            name,
        }
    }

    /// The name of this test's topic of a category.
    #[must_use]
    pub fn topic(&self, category: &str) -> String {
        format!("{}-{category}", self.name)
    }

    /// Creates the topic of orders and returns its name.
    ///
    /// # Panics
    /// If the broker refuses.
    pub async fn create_topic(&self, partitions: i32) -> String {
        let topic = self.topic("order");
        self.create(&topic, partitions).await;
        topic
    }

    /// Creates a topic.
    ///
    /// # Panics
    /// If the broker refuses.
    pub async fn create(&self, topic: &str, partitions: i32) {
        create_topic(&self.brokers, topic, partitions).await;
    }

    /// Deletes a topic.
    ///
    /// # Panics
    /// If the broker refuses.
    pub async fn delete(&self, topic: &str) {
        delete_topic(&self.brokers, topic).await;
    }

    /// Adds partitions to a topic, up to this number.
    ///
    /// # Panics
    /// If the broker refuses.
    pub async fn repartition(&self, topic: &str, partitions: usize) {
        add_partitions(&self.brokers, topic, partitions).await;
    }

    /// The record of an event, as the relay writes it.
    ///
    /// # Panics
    /// If the event does not encode, or is of another set than the bed's.
    pub fn draft(&self, stream: &str, version: i64, event: &impl EventSet) -> Draft {
        let encoded = event.encode().must("encode an event");
        let schema_id = self.schema_ids.get(encoded.event_type).must("find a schema");
        let position = self.position.fetch_add(1, Ordering::Relaxed);
        let headers = [
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", Uuid::new_v4().to_string()),
            ("ce_source", format!("annals://{}", self.name)),
            ("ce_type", encoded.schema.full_name().to_owned()),
            ("ce_dataschema", "http://registry.test/schemas/ids/0".to_owned()),
            ("ce_subject", stream.to_owned()),
            ("ce_time", Timestamp::now().to_string()),
            ("ce_streamversion", version.to_string()),
            ("ce_position", position.to_string()),
            ("content-type", Framing::Prefix.content_type().to_owned()),
        ];
        Draft {
            key: stream.to_owned(),
            value: to_wire_format(*schema_id, &encoded.payload),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// Writes records, in this order, and waits until the broker has them all.
    pub async fn write(&self, topic: &str, drafts: &[Draft]) {
        send(&self.producer, topic, drafts).await;
    }

    /// Writes records into a partition.
    pub async fn write_to(&self, topic: &str, partition: i32, drafts: &[Draft]) {
        let records = drafts.iter().map(|draft| {
            let headers = draft.headers.iter();
            let bytes =
                |(name, value): &(String, String)| (name.clone(), Some(value.as_bytes().to_vec()));
            RawRecord {
                partition,
                offset: 0,
                timestamp_ms: None,
                key: Some(draft.key.as_bytes().to_vec()),
                value: Some(draft.value.clone()),
                headers: headers.map(bytes).collect(),
            }
        });
        write_records(&self.brokers, topic, &records.collect::<Vec<_>>()).await;
    }

    /// Writes a record that is no event into the first partition.
    pub async fn write_foreign(&self, topic: &str, key: Option<&str>, value: Option<&[u8]>) {
        let record = RawRecord {
            partition: 0,
            offset: 0,
            timestamp_ms: None,
            key: key.map(|key| key.as_bytes().to_vec()),
            value: value.map(<[u8]>::to_vec),
            headers: vec![("producer".to_owned(), Some(b"another".to_vec()))],
        };
        write_records(&self.brokers, topic, &[record]).await;
    }

    /// A pool whose sessions have a setting of PostgreSQL.
    pub async fn pool_with(&self, setting: &str, value: &str) -> PgPool {
        let options: PgConnectOptions = self.database_url.parse().must("read the URL");
        PgPool::connect_with(options.options([(setting, value)]))
            .await
            .must("connect with a setting")
    }

    /// A producer that has begun its epoch; transactions are the test's.
    ///
    /// # Panics
    /// If the broker does not answer.
    pub fn transactional_producer(&self) -> FutureProducer {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("transactional.id", &self.name)
            .create()
            .must("make a producer");
        producer.init_transactions(DEADLINE).must("begin transactions");
        producer
    }

    /// Settings of a consumer that notices new topics at once.
    #[must_use]
    pub fn settings(&self) -> ConsumerSettings {
        ConsumerSettings::new(&self.brokers).topic_check_interval(Duration::from_millis(100))
    }

    /// The registry, as a consumer uses it.
    ///
    /// # Panics
    /// If its URL is invalid.
    pub fn schemas(&self) -> SchemaRegistry {
        SchemaRegistry::new(&self.registry_url).must("use the registry")
    }

    /// Everything that is in a topic.
    pub async fn read_all(&self, topic: &str) -> Vec<Delivered> {
        let connect = Consumer::connect(self.settings());
        let mut consumer = connect.read_to_end(&[topic]).await.must("read a topic to its end");
        in_time(consumer.read_remaining()).await.must("read a topic to its end")
    }

    /// A projection whose tables are prepared.
    ///
    /// # Panics
    /// If the database refuses.
    pub async fn projection(&self, topics: &[&str]) -> Projection {
        let projection = Projection::new("totals", topics).must("name a projection");
        projection.prepare(&self.pool).await.must("prepare a projection");
        projection
    }

    /// A runner of a projection with [`settings`](Self::settings).
    #[must_use]
    pub fn runner(&self, projection: &Projection) -> Runner {
        projection.runner(&self.pool, self.settings(), self.schemas())
    }
}

impl Drop for TopicBed {
    fn drop(&mut self) {
        if is_kept() {
            eprintln!("kept: database {}, topics {}-*", self.database_url, self.name);
            return;
        }
        let (brokers, name) = (self.brokers.clone(), self.name.clone());
        let removal = async move {
            let names = [("the_database", name.as_str())];
            let statement = include_str!("../sql/drop_database.sql");
            let dropped = administer(Environment::get(), statement, &names).await;
            delete_topics(brokers, format!("{name}-")).await?;
            dropped
        };
        if let Err(error) = crate::blocking::run(removal) {
            eprintln!("could not remove what test {} used: {error:#}", self.name);
        }
    }
}

impl Draft {
    /// Sets a header.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Replaces the value.
    #[must_use]
    pub fn value(mut self, value: &[u8]) -> Self {
        self.value = value.to_owned();
        self
    }
}

/// Hands all records to the producer at once, in order, and waits for the broker.
pub async fn send(producer: &FutureProducer, topic: &str, drafts: &[Draft]) {
    let mut sent = Vec::new();
    for draft in drafts {
        let headers = draft.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let record = FutureRecord::to(topic).key(&draft.key).payload(&draft.value);
        sent.push(
            producer.send_result(record.headers(headers)).map_err(|(e, _)| e).must("send a record"),
        );
    }
    for delivery in sent {
        let delivered = delivery.await.must("wait for the broker");
        delivered.map_err(|(error, _)| error).must("write a record");
    }
}

async fn register<E: EventSet>(registry_url: &str) -> HashMap<&'static str, SchemaId> {
    let settings = SrSettings::new(registry_url.to_owned());
    let mut registered = REGISTERED.lock().await;
    let mut ids = HashMap::new();
    for (event_type, schema) in E::schemas().must("read the schemas") {
        let subject = format!("topic-bed-{}-{}", std::process::id(), schema.full_name());
        let id = match registered.get(&subject) {
            Some(id) => *id,
            None => post(&settings, subject.clone(), schema).await,
        };
        registered.insert(subject, id);
        ids.insert(*event_type, id);
    }
    ids
}

async fn post(settings: &SrSettings, subject: String, schema: &Schema) -> SchemaId {
    let name = Some(schema.full_name().to_owned());
    let definition = schema.definition().to_owned();
    let supplied = SuppliedSchema::new(name, SchemaType::Avro, definition);
    SchemaId(post_schema(settings, subject, supplied).await.must("register a schema").id)
}
