//! Schema ids: asked for once, checked while the registry answers, used when it does not.

use std::sync::Arc;

use annals_relay::config::Config;
use annals_relay::registry::RegistryClient;
use annals_relay::report::registry_failure::RegistryFailure;
use annals_relay::{Component, Failure};
use annals_schemas::{Schema, SchemaId};
use annals_testkit::{Testbed, ask_registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::config;

const AUTO: &str = "registry.auto_register = true";

/// A schema that no other test has.
fn schema(bed: &Testbed, field_type: &str) -> Schema {
    let definition = format!(
        r#"{{"type":"record","name":"FlightDeparted","namespace":"edges.{}","doc":"It has left.",
            "fields":[{{"name":"delay","type":"{field_type}"}}]}}"#,
        bed.name()
    );
    Schema::parse(&definition).unwrap()
}

fn topic(config: &Config) -> Arc<str> {
    config.topic("flight").into()
}

async fn id(config: &Config, bed: &Testbed, schema: Schema) -> Result<SchemaId, Failure> {
    RegistryClient::connect(config, bed.store()).unwrap().id(&topic(config), schema, None).await
}

async fn ask(
    registry: RegistryClient,
    topic: Arc<str>,
    schema: Schema,
) -> Result<SchemaId, Failure> {
    registry.id(&topic, schema, None).await
}

fn cause(failure: Failure) -> RegistryFailure {
    match failure {
        Failure::Schema { source, .. } => source,
        other => panic!("{other}"),
    }
}

/// The URL of a registry without a listener.
fn away(config: &Config) -> Config {
    let mut away = config.clone();
    away.registry.url = format!("http://{}", crate::NOBODY);
    away
}

async fn put(base_url: &str, path: &str, body: &str) {
    let (server, base) = base_url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let mut connection = TcpStream::connect(server).await.unwrap();
    let length = body.len();
    let request = format!(
        "PUT /{base}{path} HTTP/1.0\r\nHost: {server}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.split_whitespace().nth(1) == Some("200"), "{answer}");
}

async fn set_known_id(bed: &Testbed, id: i64) {
    let changed = sqlx::query("update annals.relay_schema_ids set id = $1")
        .bind(id)
        .execute(bed.store().pool());
    assert_eq!(changed.await.unwrap().rows_affected(), 1);
}

#[tokio::test]
async fn a_schema_is_registered_under_topic_and_record_where_that_is_allowed() {
    let bed = Testbed::new("a_schema_is_registered").await;
    let config = config(&bed, AUTO);
    let schema = schema(&bed, "long");
    let SchemaId(number) = id(&config, &bed, schema).await.unwrap();
    let subject = format!("{}-{}", topic(&config), schema.full_name());
    let registered =
        ask_registry(&config.registry.url, &format!("/subjects/{subject}/versions/latest")).await;
    assert_eq!(registered["id"], number);
    let definition: serde_json::Value = serde_json::from_str(schema.definition()).unwrap();
    let text = registered["schema"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(text).unwrap(), definition);
    assert_eq!(id(&config, &bed, schema).await.unwrap(), SchemaId(number));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relays_that_register_the_same_schema_at_once_all_get_its_id() {
    const RELAYS: usize = 6;
    let bed = Arc::new(Testbed::new("the_same_schema_at_once").await);
    let config = config(&bed, AUTO);
    for field_type in ["int", "long", "float", "double"] {
        let schema = schema(&bed, field_type);
        let topic: Arc<str> = config.topic(field_type).into();
        let mut asking = tokio::task::JoinSet::new();
        for _ in 0..RELAYS {
            let registry = RegistryClient::connect(&config, bed.store()).unwrap();
            asking.spawn(ask(registry, Arc::clone(&topic), schema));
        }
        let ids: Result<Vec<SchemaId>, Failure> = asking.join_all().await.into_iter().collect();
        let ids = ids.unwrap_or_else(|failure| panic!("{}", failure.in_full()));
        assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    }
}

#[tokio::test]
async fn where_that_is_not_allowed_the_command_that_registers_is_said_and_then_it_is_found() {
    let bed = Testbed::new("where_that_is_not_allowed").await;
    let (allowed, forbidden) = (config(&bed, AUTO), config(&bed, ""));
    let schema = schema(&bed, "long");
    let failure = cause(id(&forbidden, &bed, schema).await.unwrap_err());
    let RegistryFailure::NotRegistered { subject, command } = &failure else { panic!("{failure}") };
    assert!(
        command.contains(&format!("{}/subjects/{subject}/versions", forbidden.registry.url)),
        "{command}"
    );

    let other = Testbed::new("where_that_is_allowed").await;
    let registered = RegistryClient::connect(&allowed, other.store())
        .unwrap()
        .id(&topic(&allowed), schema, None)
        .await;
    assert_eq!(id(&forbidden, &bed, schema).await.unwrap(), registered.unwrap());
}

#[tokio::test]
async fn a_schema_that_does_not_go_with_those_before_it_is_refused_in_the_registrys_words() {
    let bed = Testbed::new("a_schema_that_does_not").await;
    let config = config(&bed, AUTO);
    let before = schema(&bed, "long");
    id(&config, &bed, before).await.unwrap();
    let subject = format!("/config/{}-{}", topic(&config), before.full_name());
    put(&config.registry.url, &subject, r#"{"compatibility":"BACKWARD"}"#).await;

    let failure = cause(id(&config, &bed, schema(&bed, "string")).await.unwrap_err());
    let RegistryFailure::Refused { reason, .. } = &failure else { panic!("{failure}") };
    assert!(reason.contains("/fields/0/type"), "{reason}");
}

#[tokio::test]
async fn a_known_id_is_used_while_the_registry_is_away_and_an_unknown_one_waits() {
    let bed = Testbed::new("a_known_id_is_used").await;
    let present = config(&bed, AUTO);
    let known = schema(&bed, "long");
    let number = id(&present, &bed, known).await.unwrap();
    let away = away(&present);
    assert_eq!(id(&away, &bed, known).await.unwrap(), number);
    let failure = id(&away, &bed, schema(&bed, "string")).await.unwrap_err();
    assert!(matches!(failure, Failure::Outage { of: Component::Registry, .. }), "{failure}");
}

#[tokio::test]
async fn an_id_that_means_another_schema_or_nothing_is_not_used() {
    let bed = Testbed::new("an_id_that_means").await;
    let config = config(&bed, AUTO);
    let lost = schema(&bed, "long");
    // A subject of another topic: its id goes to another schema.
    let other =
        Schema::parse(&schema(&bed, "boolean").definition().replace("Departed", "Landed")).unwrap();
    let registry = RegistryClient::connect(&config, bed.store()).unwrap();
    let SchemaId(foreign) = registry.id(&config.topic("other").into(), other, None).await.unwrap();
    sqlx::query("delete from annals.relay_schema_ids").execute(bed.store().pool()).await.unwrap();
    id(&config, &bed, lost).await.unwrap();

    set_known_id(&bed, foreign.into()).await;
    let failure = cause(id(&config, &bed, lost).await.unwrap_err());
    assert!(matches!(failure, RegistryFailure::IdMismatch { is_known: true, .. }), "{failure}");
    set_known_id(&bed, i32::MAX.into()).await;
    let failure = cause(id(&config, &bed, lost).await.unwrap_err());
    assert!(matches!(failure, RegistryFailure::IdMismatch { is_known: false, .. }), "{failure}");
}
