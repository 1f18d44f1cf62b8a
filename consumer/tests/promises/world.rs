//! What a test needs around it: topics, a producer, schemas in the registry, a database of its own.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use annals_consumer::{Consumer, ConsumerSettings, Delivered, Projection, Runner, SchemaRegistry};
use annals_schemas::{EventSet, SchemaId, to_wire_format};
use annals_testkit::{
    DEADLINE, Environment, RawRecord, add_partitions, create_database, create_topic, delete_topic,
    drop_database, write_records,
};
use jiff::Timestamp;
use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use schema_registry_converter::async_impl::schema_registry::{SrSettings, post_schema};
use schema_registry_converter::schema_registry_common::{SchemaType, SuppliedSchema};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::sync::OnceCell;
use uuid::Uuid;

use crate::events::OrderEvent;

/// Registered once for all tests of this process: the registry refuses a subject that two programs
/// make at the same moment.
static SCHEMA_IDS: OnceCell<HashMap<&'static str, SchemaId>> = OnceCell::const_new();

pub(crate) struct World {
    pub(crate) brokers: String,
    pub(crate) registry_url: String,
    pub(crate) database_url: String,
    /// Differs for each test: topics, the database and transactional ids begin with it.
    pub(crate) name: String,
    pub(crate) pool: PgPool,
    pub(crate) producer: FutureProducer,
    schema_ids: &'static HashMap<&'static str, SchemaId>,
    position: AtomicI64,
}

/// A record as the relay would write it, to be changed by tests that want it wrong.
#[derive(Debug, Clone)]
pub(crate) struct Draft {
    pub(crate) key: String,
    pub(crate) value: Vec<u8>,
    pub(crate) headers: Vec<(String, String)>,
}

impl World {
    pub(crate) async fn new() -> Self {
        crate::logs::collect();
        let Environment { kafka: brokers, registry_url, .. } = Environment::get().clone();
        let name = format!("consumer_test_{}", Uuid::now_v7().simple());
        create_database(Environment::get(), &name).await;
        let database_url = Environment::get().url_of_database(&name);
        // Without idempotence a producer may reorder what it retries.
        let mut producer = ClientConfig::new();
        producer.set("bootstrap.servers", &brokers).set("enable.idempotence", "true");
        Self {
            pool: PgPool::connect(&database_url).await.unwrap(),
            producer: producer.create().unwrap(),
            schema_ids: SCHEMA_IDS.get_or_init(|| register(&registry_url)).await,
            position: AtomicI64::new(0),
            brokers,
            registry_url,
            database_url,
            name,
        }
    }

    pub(crate) fn topic(&self, category: &str) -> String {
        format!("{}-{category}", self.name)
    }

    pub(crate) async fn create_topic(&self, partitions: i32) -> String {
        let topic = self.topic("order");
        self.create(&topic, partitions).await;
        topic
    }

    pub(crate) async fn create(&self, topic: &str, partitions: i32) {
        create_topic(&self.brokers, topic, partitions).await;
    }

    pub(crate) async fn delete(&self, topic: &str) {
        delete_topic(&self.brokers, topic).await;
    }

    pub(crate) async fn repartition(&self, topic: &str, partitions: usize) {
        add_partitions(&self.brokers, topic, partitions).await;
    }

    /// The record of an event, as the relay writes it.
    pub(crate) fn draft(&self, stream: &str, version: i64, event: &OrderEvent) -> Draft {
        let encoded = event.encode().unwrap();
        let position = self.position.fetch_add(1, Ordering::Relaxed);
        let headers = [
            ("ce_specversion", "1.0".to_owned()),
            ("ce_id", Uuid::now_v7().to_string()),
            ("ce_source", format!("annals://{}", self.name)),
            ("ce_type", encoded.event_type.to_owned()),
            ("ce_subject", stream.to_owned()),
            ("ce_time", Timestamp::now().to_string()),
            ("ce_streamversion", version.to_string()),
            ("ce_position", position.to_string()),
            ("content-type", "application/avro".to_owned()),
        ];
        Draft {
            key: stream.to_owned(),
            value: to_wire_format(self.schema_ids[encoded.event_type], &encoded.payload),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).into(),
        }
    }

    /// Writes records, in this order, and waits until the broker has them all.
    pub(crate) async fn write(&self, topic: &str, drafts: &[Draft]) {
        send(&self.producer, topic, drafts).await;
    }

    /// Writes a record that is no event into the first partition.
    pub(crate) async fn write_foreign(&self, topic: &str, key: Option<&str>, value: Option<&[u8]>) {
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
    pub(crate) async fn pool_with(&self, setting: &str, value: &str) -> PgPool {
        let options: PgConnectOptions = self.database_url.parse().unwrap();
        PgPool::connect_with(options.options([(setting, value)])).await.unwrap()
    }

    pub(crate) fn transactional_producer(&self) -> FutureProducer {
        let producer: FutureProducer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("transactional.id", &self.name)
            .create()
            .unwrap();
        producer.init_transactions(DEADLINE).unwrap();
        producer
    }

    pub(crate) fn settings(&self) -> ConsumerSettings {
        ConsumerSettings::new(&self.brokers).topic_check_interval(Duration::from_millis(100))
    }

    pub(crate) fn schemas(&self) -> SchemaRegistry {
        SchemaRegistry::new(&self.registry_url).unwrap()
    }

    /// Everything that is in a topic.
    pub(crate) async fn read_all(&self, topic: &str) -> Vec<Delivered> {
        let connect = Consumer::connect(self.settings());
        let mut consumer = connect.read_to_end(&[topic]).await.unwrap();
        patiently(consumer.read_remaining()).await.unwrap()
    }

    pub(crate) async fn projection(&self, topics: &[&str]) -> Projection {
        let projection = Projection::new("totals", topics).unwrap();
        projection.prepare(&self.pool).await.unwrap();
        projection
    }

    pub(crate) fn runner(&self, projection: &Projection) -> Runner {
        projection.runner(&self.pool, self.settings(), self.schemas())
    }

    /// Removes what the test made. Not called by a test that fails: then it can be looked at.
    pub(crate) async fn clean(self, topics: &[&str]) {
        for topic in topics {
            self.delete(topic).await;
        }
        self.pool.close().await;
        drop_database(Environment::get(), &self.name).await;
    }
}

impl Draft {
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.retain(|(other, _)| other != name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn value(mut self, value: &[u8]) -> Self {
        self.value = value.to_owned();
        self
    }
}

/// Hands all records to the producer at once, in order, and waits for the broker.
pub(crate) async fn send(producer: &FutureProducer, topic: &str, drafts: &[Draft]) {
    let mut sent = Vec::new();
    for draft in drafts {
        let headers = draft.headers.iter().fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header { key, value: Some(value) })
        });
        let record = FutureRecord::to(topic).key(&draft.key).payload(&draft.value);
        sent.push(producer.send_result(record.headers(headers)).map_err(|(e, _)| e).unwrap());
    }
    for delivery in sent {
        delivery.await.unwrap().unwrap();
    }
}

/// Fails a test that hangs instead of waiting for ever.
pub(crate) async fn patiently<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, work).await.expect("this should have ended long ago")
}

async fn register(registry_url: &str) -> HashMap<&'static str, SchemaId> {
    let settings = SrSettings::new(registry_url.to_owned());
    let process = Uuid::now_v7().simple();
    let mut ids = HashMap::new();
    for (event_type, schema) in OrderEvent::schemas().unwrap() {
        let subject = format!("consumer-tests-{process}-{}", schema.full_name());
        let supplied = SuppliedSchema::new(
            Some(schema.full_name().to_owned()),
            SchemaType::Avro,
            schema.definition().to_owned(),
        );
        let registered = post_schema(&settings, subject, supplied).await.unwrap();
        ids.insert(*event_type, SchemaId(registered.id));
    }
    ids
}
