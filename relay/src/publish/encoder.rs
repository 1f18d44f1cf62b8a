//! Events become messages, with their topics and the registry ids of their schemas.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

use annals_schemas::{Fingerprint, SchemaId};
use annals_store::Store;
use annals_store::outbox::OutboxEvent;

use crate::config::Config;
use crate::model::message::{Destination, Message};
use crate::model::quarantine::{Cause, Kind, NewEntry};
use crate::publish::registry::RegistryClient;
use crate::publish::topics::CategoryTopics;
use crate::report::failure::Failure;

/// Turns events into messages. It caches topics and schema ids.
pub(crate) struct Encoder {
    store: Store,
    topics: CategoryTopics,
    registry: RegistryClient,
    source: String,
    known: HashMap<String, KnownCategory>,
    /// Categories whose topics are to be prepared.
    wanted: BTreeSet<String>,
}

struct KnownCategory {
    to: Destination,
    ids: HashMap<Fingerprint, Result<SchemaId, String>>,
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
            store: store.clone(),
            topics: CategoryTopics::new(config, store),
            registry,
            source: config.relay.source.clone(),
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
        let category = &self.known[event.category];
        let id = match category.ids.get(&event.fingerprint) {
            Some(Ok(id)) => *id,
            Some(Err(reason)) => {
                return Err(EncodeFailure::Quarantine(new_entry(
                    Cause::Schema,
                    reason.clone(),
                    event,
                )));
            }
            None if Instant::now() >= until => return Err(EncodeFailure::NotReady),
            None => self.learn(event).await.map_err(|failure| {
                let error = encode_error(failure, event);
                // The other events of the schema do not ask again.
                if let (EncodeFailure::Quarantine(entry), Some(category)) =
                    (&error, self.known.get_mut(event.category))
                {
                    category.ids.insert(event.fingerprint, Err(entry.reason.clone()));
                }
                error
            })?,
        };
        let to = &self.known[event.category].to;
        Message::new(event, to, id, &self.source).map_err(|unreadable| {
            EncodeFailure::Quarantine(new_entry(Cause::Event, unreadable.to_string(), event))
        })
    }

    /// Whether a category's topic is ready.
    fn is_known(&mut self, category: &str) -> Result<bool, Failure> {
        if self.known.contains_key(category) {
            return Ok(true);
        }
        if let Some(to) = self.topics.ready(category) {
            self.known.insert(category.to_owned(), KnownCategory { to, ids: HashMap::new() });
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
    async fn learn(&mut self, event: &OutboxEvent<'_>) -> Result<SchemaId, Failure> {
        let schemas = self.store.schemas([event.fingerprint].into()).await?;
        let schema = schemas[&event.fingerprint];
        let topic = Arc::clone(&self.known[event.category].to.topic);
        let id = self.registry.id(&topic, schema).await?;
        if let Some(category) = self.known.get_mut(event.category) {
            category.ids.insert(event.fingerprint, Ok(id));
        }
        Ok(id)
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
            category.ids.retain(|_, id| id.is_ok());
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
