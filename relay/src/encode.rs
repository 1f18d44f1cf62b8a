//! Events become messages: to which topic, with which registry id.

use std::collections::HashMap;
use std::sync::Arc;

use annals_schemas::{Fingerprint, SchemaId};
use annals_store::Store;
use annals_store::outbox::OutboxEvent;

use crate::config::Config;
use crate::failure::Failure;
use crate::holds::{Cause, Kind, Refusal};
use crate::message::{Destination, Message};
use crate::registry::Registry;
use crate::topics::Topics;

/// Turns events into messages. What it learns about topics and schemas it keeps.
pub(crate) struct Encoder {
    store: Store,
    topics: Topics,
    registry: Registry,
    source: String,
    known: HashMap<String, Category>,
}

struct Category {
    to: Destination,
    ids: HashMap<Fingerprint, Result<SchemaId, String>>,
}

/// Why an event cannot become a message.
pub(crate) enum Obstacle {
    /// Its topic or its schema is in the way: it is held, and others are not.
    Refused(Refusal),
    /// It is not known whether it can.
    Failed(Failure),
}

impl Encoder {
    pub(crate) fn new(config: &Arc<Config>, store: &Store, registry: Registry) -> Self {
        Self {
            store: store.clone(),
            topics: Topics::new(config, store),
            registry,
            source: config.relay.source.clone(),
            known: HashMap::new(),
        }
    }

    /// The message of an event. The first event of a category makes its topic, the first of a schema
    /// asks the registry.
    pub(crate) async fn message(&mut self, event: &OutboxEvent<'_>) -> Result<Message, Obstacle> {
        if !self.known.contains_key(event.category) {
            let made = self.topic(event.category).await;
            made.map_err(|failure| obstacle(failure, event))?;
        }
        let category = &self.known[event.category];
        let id = match category.ids.get(&event.fingerprint) {
            Some(Ok(id)) => *id,
            Some(Err(reason)) => {
                return Err(Obstacle::Refused(refusal(Cause::Schema, reason.clone(), event)));
            }
            None => self.learn(event).await.map_err(|failure| {
                let obstacle = obstacle(failure, event);
                // Asked once for all of them.
                if let (Obstacle::Refused(refusal), Some(category)) =
                    (&obstacle, self.known.get_mut(event.category))
                {
                    category.ids.insert(event.fingerprint, Err(refusal.reason.clone()));
                }
                obstacle
            })?,
        };
        let to = &self.known[event.category].to;
        Message::new(event, to, id, &self.source).map_err(|unreadable| {
            Obstacle::Refused(refusal(Cause::Event, unreadable.to_string(), event))
        })
    }

    /// Makes sure of a category's topic.
    pub(crate) async fn topic(&mut self, category: &str) -> Result<(), Failure> {
        let to = self.topics.ensure(category).await?;
        let fresh = Category { to, ids: HashMap::new() };
        self.known.entry(category.to_owned()).or_insert(fresh);
        Ok(())
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

    /// Its view of topics, to watch them with.
    pub(crate) fn topics(&self) -> Topics {
        self.topics.clone()
    }

    /// Forgets what it learned: after a failure, topics and schemas are looked at again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }
}

/// What a failure means to the event that met it.
fn obstacle(failure: Failure, event: &OutboxEvent<'_>) -> Obstacle {
    match failure.cause_to_hold() {
        Some(cause) => Obstacle::Refused(refusal(cause, failure.in_full(), event)),
        None => Obstacle::Failed(failure),
    }
}

fn refusal(cause: Cause, reason: String, event: &OutboxEvent<'_>) -> Refusal {
    let (kind, name, position) = match cause {
        Cause::Topic => (Kind::Category, event.category, None),
        Cause::Record | Cause::Schema | Cause::Event => {
            (Kind::Stream, event.stream, Some(event.position))
        }
    };
    Refusal { kind, name: name.to_owned(), cause, reason, position }
}
