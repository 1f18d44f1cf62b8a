//! Registries that the development stack does not have: relay and consumer with the answers of
//! Confluent's, Karapace's and Redpanda's, as their sources have them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use annals_consumer::{Consumer, ConsumerSettings, RegistrySettings, SchemaRegistry};
use annals_store::{Append, ExpectedVersion, NewEvent};
use annals_testkit::{
    AccountEvent, CATEGORY, Must, RelayProcess, Testbed, account, check, deposited, in_time, opened,
};
use serde_json::{Value, json};

use crate::key_server::{self, Request};

const ERRORS: i32 = 3;
const CONTEXT: &str = "/contexts/.mine";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Product {
    Confluent,
    Karapace,
    Redpanda,
}

/// A registry in memory.
#[derive(Debug)]
struct Registry {
    product: Product,
    mode: &'static str,
    /// Whether each subject has a schema of another program, with another major version, that no
    /// schema of ours is compatible with.
    has_foreign_schemas: bool,
    /// The property of the metadata of schemas that are compared with one another.
    compatibility_group: Option<&'static str>,
    /// By their ids, from 1 on.
    definitions: Vec<Value>,
    /// The ids of versions by subject, without deleted ones.
    subjects: BTreeMap<String, Vec<usize>>,
}

type Shared = Arc<Mutex<Registry>>;

fn locked(registry: &Shared) -> MutexGuard<'_, Registry> {
    registry.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn start(product: Product) -> (Shared, String) {
    let (definitions, subjects) = (Vec::new(), BTreeMap::new());
    let mode = "READWRITE";
    let registry = Registry {
        product,
        mode,
        has_foreign_schemas: false,
        compatibility_group: None,
        definitions,
        subjects,
    };
    let registry = Arc::new(Mutex::new(registry));
    let shared = Arc::clone(&registry);
    let address = key_server::start(move |request| locked(&shared).answer(request)).await;
    (registry, format!("http://{address}"))
}

fn refusal(status: u16, error_code: u32, message: &str) -> (u16, Value) {
    (status, json!({ "error_code": error_code, "message": message }))
}

impl Registry {
    fn answer(&mut self, request: &Request) -> (u16, Value) {
        let (_, path) = request.line.split_once(' ').must("have a path");
        let path = path.split('?').next().unwrap_or_default();
        // Contexts qualify the subjects.
        let (context, path) = match path.strip_prefix(CONTEXT) {
            Some(path) => (":.mine:", path),
            None => ("", path),
        };
        let parts: Vec<_> = path.split('/').skip(1).collect();
        let definition = || {
            let definition = request.body["schema"].as_str().must("have a schema");
            serde_json::from_str(definition).must("read a definition")
        };
        match parts[..] {
            ["mode"] => (200, json!({ "mode": self.mode })),
            ["subjects", subject] => self.look_up(&format!("{context}{subject}"), &definition()),
            ["subjects", subject, "versions"] => {
                let metadata = &request.body["metadata"]["properties"];
                match self.is_compared_with_foreign(metadata) {
                    true => Self::incompatible(subject),
                    false => self.register(&format!("{context}{subject}"), definition()),
                }
            }
            ["subjects", subject, "versions", _] => Self::no_subject(subject),
            ["schemas", "ids", id] => self.by_id(id.parse().must("read an id")),
            _ => (404, json!({ "error_code": 404, "message": "HTTP 404 Not Found" })),
        }
    }

    fn no_subject(subject: &str) -> (u16, Value) {
        refusal(404, 40_401, &format!("Subject '{subject}' not found."))
    }

    /// Whether a schema with this metadata is in the group of the foreign ones, if there are any.
    fn is_compared_with_foreign(&self, metadata: &Value) -> bool {
        let foreign = json!({ "major": "1" });
        self.has_foreign_schemas
            && self
                .compatibility_group
                .is_none_or(|group| metadata.get(group) == foreign.get(group))
    }

    fn incompatible(subject: &str) -> (u16, Value) {
        let message = format!(
            "Schema being registered is incompatible with an earlier schema for subject \"{subject}\""
        );
        refusal(409, 409, &message)
    }

    fn look_up(&self, subject: &str, definition: &Value) -> (u16, Value) {
        let Some(versions) = self.subjects.get(subject) else { return Self::no_subject(subject) };
        let is_it = |id: &&usize| self.definitions.get(**id - 1) == Some(definition);
        let Some(id) = versions.iter().find(is_it) else {
            return refusal(404, 40_403, "Schema not found");
        };
        let schema = self.printed(*id).must("print a schema");
        let mut found = json!({ "subject": subject, "version": 1, "id": id, "schema": schema });
        if self.product != Product::Karapace {
            found["schemaType"] = "AVRO".into();
        }
        (200, found)
    }

    fn register(&mut self, subject: &str, definition: Value) -> (u16, Value) {
        if self.mode == "IMPORT" {
            return refusal(422, 42_205, &format!("Subject {subject} is in import mode"));
        }
        if self.mode == "READONLY" {
            return refusal(422, 42_205, &format!("Subject {subject} is in read-only mode"));
        }
        // The same definition has the same id, also under another subject and after a deletion.
        let known = self.definitions.iter().position(|known| *known == definition);
        let id = known.map_or_else(
            || {
                self.definitions.push(definition);
                self.definitions.len()
            },
            |index| index + 1,
        );
        self.subjects.entry(subject.to_owned()).or_default().push(id);
        let answer = match self.product {
            Product::Confluent => json!({
                "id": id, "version": 1, "guid": uuid::Uuid::new_v4(), "schemaType": "AVRO",
                "schema": self.printed(id)
            }),
            Product::Karapace | Product::Redpanda => json!({ "id": id }),
        };
        (200, answer)
    }

    fn by_id(&self, id: usize) -> (u16, Value) {
        match (self.printed(id), self.product) {
            (Some(schema), _) => (200, json!({ "schema": schema })),
            (None, Product::Karapace) => refusal(404, 40_403, "Schema not found"),
            (None, _) => refusal(404, 40_403, &format!("Schema {id} not found")),
        }
    }

    /// Without blanks; Redpanda also separates names from their namespaces.
    fn printed(&self, id: usize) -> Option<String> {
        let mut definition = self.definitions.get(id - 1)?.clone();
        if self.product == Product::Redpanda {
            separate_namespaces(&mut definition);
        }
        Some(definition.to_string())
    }

    /// Deletes all subjects softly: their schemas keep their ids.
    fn delete_subjects(&mut self) {
        self.subjects.clear();
    }
}

fn separate_namespaces(schema: &mut Value) {
    match schema {
        Value::Object(parts) => {
            let is_named = parts.contains_key("fields") || parts.contains_key("symbols");
            let name = parts.get("name").and_then(Value::as_str).map(str::to_owned);
            if let Some((namespace, name)) = name.as_deref().and_then(|name| name.rsplit_once('.'))
                && is_named
            {
                parts.insert("namespace".to_owned(), namespace.into());
                parts.insert("name".to_owned(), name.into());
            }
            parts.values_mut().for_each(separate_namespaces);
        }
        Value::Array(parts) => parts.iter_mut().for_each(separate_namespaces),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

async fn append(bed: &Testbed, event: NewEvent) {
    let append = Append::to(&account("a"), ExpectedVersion::Any, [event]);
    bed.store().append(&append).await.must("append");
}

/// Reads the first event.
async fn decodes(bed: &Testbed, url: &str) {
    let registry = SchemaRegistry::connect(&RegistrySettings::new(url)).must("use the registry");
    let topic = bed.topic(CATEGORY);
    let topics = [topic.as_str()];
    let kafka = ConsumerSettings::new(&bed.environment().kafka);
    let mut consumer =
        in_time(Consumer::connect(kafka).read_to_end(&topics)).await.must("read a topic");
    let first = in_time(consumer.next()).await.must("read").must("have an event");
    let decoded = in_time(first.decode::<AccountEvent>(&registry)).await.must("decode");
    assert!(matches!(decoded, AccountEvent::MoneyDeposited(_)), "{decoded:?}");
}

/// Publishes with a new schema, with a known one after a restart, with one whose subject was
/// deleted, and waits for one that is not registered.
async fn works(product: Product, context: &str) {
    let bed = Testbed::new("other_registry").await;
    let (registry, url) = start(product).await;
    let url = url + context;
    let settings = bed.relay().impatient().registry(&url);
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&settings);
    append(&bed, deposited(1)).await;
    follower.until_count(1).await;
    decodes(&bed, &url).await;
    let is_qualified = |subject: &String| subject.starts_with(":.mine:") != context.is_empty();
    assert!(locked(&registry).subjects.keys().all(is_qualified));
    locked(&registry).delete_subjects();
    relay.kill().await;
    relay.restart();
    append(&bed, deposited(2)).await;
    follower.until_count(2).await;
    append(&bed, opened("ann")).await;
    follower.until_count(3).await;
    assert!(!relay.has_event("quarantined") && !relay.has_event("registry_unavailable"));
    assert!(relay.terminate().await.success());
    locked(&registry).delete_subjects();
    let unregistered = settings.variable("ANNALS_RELAY__REGISTRY__AUTO_REGISTER", "false");
    let (code, said) = unregistered.run_for_code(&["check", "--json"]).await;
    assert!(code == ERRORS && said.contains("is not usable"), "{said}");
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn relay_and_consumer_work_with_confluents_karapaces_and_redpandas_registry() {
    tokio::join!(
        works(Product::Confluent, ""),
        works(Product::Confluent, CONTEXT),
        works(Product::Karapace, ""),
        works(Product::Redpanda, ""),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mode_that_takes_no_schema_is_named_and_the_category_waits_for_its_end() {
    let bed = Testbed::new("registry_mode").await;
    let (registry, url) = start(Product::Confluent).await;
    let settings = bed.relay().impatient().registry(&url);
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&settings);
    relay.event("publishing").await;
    let events = [("READONLY", "read-only", deposited(1)), ("IMPORT", "import", opened("ann"))];
    for (count, (mode, words, event)) in (1..).zip(events) {
        relay.turn_page();
        locked(&registry).mode = mode;
        append(&bed, event).await;
        let line = relay.quarantines(CATEGORY).await;
        assert!(line.contains(&format!("is in {words} mode")), "{line}");
        let (code, said) = settings.run_for_code(&["check", "--json"]).await;
        assert!(code == ERRORS && said.contains(&format!("is in mode {mode}")), "{said}");
        locked(&registry).mode = "READWRITE";
        follower.until_count(count).await;
        relay.event("quarantine_ended").await;
    }
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemas_are_not_compared_with_those_of_another_compatibility_group() {
    let bed = Testbed::new("registry_groups").await;
    let (registry, url) = start(Product::Confluent).await;
    locked(&registry).has_foreign_schemas = true;
    let follower = bed.follow();
    let mut relay = RelayProcess::start(&bed.relay().impatient().registry(&url));
    append(&bed, deposited(1)).await;
    let line = relay.quarantines_for("schema", "account-a").await;
    assert!(line.contains("is incompatible with an earlier schema"), "{line}");
    locked(&registry).compatibility_group = Some("major");
    bed.relay().must_run(&["quarantine", "retry", "account-a"]).await;
    follower.until_count(1).await;
    decodes(&bed, &url).await;
    append(&bed, opened("ann")).await;
    follower.until_count(2).await;
    assert!(relay.terminate().await.success());
    assert_eq!(check(&bed.history(Vec::new()).await), []);
}
