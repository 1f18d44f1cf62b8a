//! Events become messages, with their topics and the registry ids of their schemas.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use annals_schemas::Fingerprint;
use annals_store::Store;
use annals_store::outbox::OutboxEvent;

use crate::config::Config;
use crate::model::message::{Destination, Message, WriterSchema};
use crate::model::quarantine::{Cause, Kind, NewEntry};
use crate::publish::registry::RegistryClient;
use crate::publish::topics::CategoryTopics;
use crate::publish::writer_schemas::WriterSchemas;
use crate::report::failure::Failure;

/// Turns events into messages. It caches topics and schema ids.
pub(crate) struct Encoder {
    topics: CategoryTopics,
    schemas: WriterSchemas,
    known: HashMap<String, KnownCategory>,
    /// Categories whose topics are to be prepared.
    wanted: BTreeSet<String>,
}

struct KnownCategory {
    to: Destination,
    schemas: HashMap<Fingerprint, Result<WriterSchema, String>>,
}

/// Why an event cannot become a message.
pub(crate) enum EncodeFailure {
    /// Its topic or its schema prevents it: its stream or its category is quarantined.
    Quarantine(NewEntry),
    /// Its topic or its schema is not ready yet: the page is published without it.
    NotReady,
    /// Another failure prevents finding out.
    Failed(Failure),
}

impl Encoder {
    pub(crate) fn new(config: &Arc<Config>, store: &Store, registry: RegistryClient) -> Self {
        Self {
            topics: CategoryTopics::new(config, store),
            schemas: WriterSchemas::new(config, store, registry),
            known: HashMap::new(),
            wanted: BTreeSet::new(),
        }
    }

    /// The message of an event, if its topic is ready. For the first event of a schema it asks the
    /// registry, but not after `until`.
    pub(crate) async fn message(
        &mut self,
        event: &OutboxEvent<'_>,
        until: Instant,
    ) -> Result<Message, EncodeFailure> {
        if !self.is_known(event.category).map_err(|failure| encode_error(failure, event))? {
            self.want(event.category);
            return Err(EncodeFailure::NotReady);
        }
        if !self.known[event.category].schemas.contains_key(&event.fingerprint) {
            if Instant::now() >= until {
                return Err(EncodeFailure::NotReady);
            }
            self.learn(event).await.map_err(|failure| {
                let error = encode_error(failure, event);
                // The other events of the schema do not ask again.
                if let EncodeFailure::Quarantine(entry) = &error {
                    self.remember(event, Err(entry.reason.clone()));
                }
                error
            })?;
        }
        let category = &self.known[event.category];
        let schema = match &category.schemas[&event.fingerprint] {
            Ok(schema) => schema,
            Err(reason) => {
                let entry = new_entry(Cause::Schema, reason.clone(), event);
                return Err(EncodeFailure::Quarantine(entry));
            }
        };
        Message::new(event, &category.to, schema, self.schemas.format()).map_err(|unreadable| {
            EncodeFailure::Quarantine(new_entry(Cause::Event, unreadable.to_string(), event))
        })
    }

    /// Whether a category's topic is ready.
    fn is_known(&mut self, category: &str) -> Result<bool, Failure> {
        if self.known.contains_key(category) {
            return Ok(true);
        }
        if let Some(to) = self.topics.ready(category) {
            self.known.insert(category.to_owned(), KnownCategory { to, schemas: HashMap::new() });
            return Ok(true);
        }
        self.topics.refused(category).map_or(Ok(false), Err)
    }

    /// Has a category's topic prepared, unless it is ready.
    pub(crate) fn want(&mut self, category: &str) {
        if !self.known.contains_key(category) && !self.wanted.contains(category) {
            self.wanted.insert(category.to_owned());
        }
    }

    /// Prepares the wanted topics, all together, as far as that goes until then.
    pub(crate) async fn prepare(&mut self, until: Instant) -> Result<(), Failure> {
        let wanted = std::mem::take(&mut self.wanted);
        if wanted.is_empty() { Ok(()) } else { self.topics.prepare(wanted, until).await }
    }

    /// Prepares the topics of given categories; returns the result of each that is known then.
    pub(crate) async fn topics_of(
        &mut self,
        categories: BTreeSet<String>,
        until: Instant,
    ) -> Result<Vec<(String, Result<(), Failure>)>, Failure> {
        self.topics.prepare(categories.clone(), until).await?;
        let known = categories.into_iter().filter_map(|category| {
            let known = self.is_known(&category);
            (!matches!(known, Ok(false))).then(|| (category, known.map(drop)))
        });
        Ok(known.collect())
    }

    /// Asks for the registry id of an event's schema.
    async fn learn(&mut self, event: &OutboxEvent<'_>) -> Result<(), Failure> {
        let topic = Arc::clone(&self.known[event.category].to.topic);
        let schema = self.schemas.of(&topic, event.category, event.fingerprint).await?;
        self.remember(event, Ok(schema));
        Ok(())
    }

    fn remember(&mut self, event: &OutboxEvent<'_>, schema: Result<WriterSchema, String>) {
        if let Some(category) = self.known.get_mut(event.category) {
            category.schemas.insert(event.fingerprint, schema);
        }
    }

    /// The topics that it uses.
    pub(crate) fn topics(&self) -> CategoryTopics {
        self.topics.clone()
    }

    /// Clears its caches: after a failure, topics and schemas are looked up again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.topics.forget();
    }

    /// Clears the refused schemas from its caches: they are looked up again.
    pub(crate) fn forget_refusals(&mut self) {
        for category in self.known.values_mut() {
            category.schemas.retain(|_, schema| schema.is_ok());
        }
    }
}

/// The consequence of a failure for its event.
fn encode_error(failure: Failure, event: &OutboxEvent<'_>) -> EncodeFailure {
    match failure.policy().quarantines {
        Some(cause) => EncodeFailure::Quarantine(new_entry(cause, failure.in_full(), event)),
        None => EncodeFailure::Failed(failure),
    }
}

fn new_entry(cause: Cause, reason: String, event: &OutboxEvent<'_>) -> NewEntry {
    let (kind, name, position) = match cause {
        Cause::Topic => (Kind::Category, event.category, None),
        Cause::Record | Cause::Schema | Cause::Event => {
            (Kind::Stream, event.stream, Some(event.position))
        }
    };
    NewEntry { kind, name: name.to_owned(), cause, reason, position }
}
