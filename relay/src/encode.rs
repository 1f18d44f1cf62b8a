//! Events become messages: to which topic, with which registry id.

use std::collections::HashMap;
use std::sync::Arc;

use annals_schemas::{Fingerprint, SchemaId};
use annals_store::Store;
use annals_store::outbox::OutboxEvent;

use crate::config::Config;
use crate::failure::Failure;
use crate::message::Message;
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
    topic: Arc<str>,
    ids: HashMap<Fingerprint, SchemaId>,
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
    pub(crate) async fn message(&mut self, event: &OutboxEvent<'_>) -> Result<Message, Failure> {
        if !self.known.contains_key(event.category) {
            let topic = self.topics.ensure(event.category).await?;
            self.known.insert(event.category.to_owned(), Category { topic, ids: HashMap::new() });
        }
        let category = &self.known[event.category];
        let topic = Arc::clone(&category.topic);
        let id = match category.ids.get(&event.fingerprint) {
            Some(id) => *id,
            None => self.learn(event).await?,
        };
        Ok(Message::new(event, &topic, id, &self.source))
    }

    /// Asks for the registry id of an event's schema.
    async fn learn(&mut self, event: &OutboxEvent<'_>) -> Result<SchemaId, Failure> {
        let schemas = self.store.schemas([event.fingerprint].into()).await?;
        let schema = schemas[&event.fingerprint];
        let topic = Arc::clone(&self.known[event.category].topic);
        let id = self.registry.id(&topic, schema).await?;
        if let Some(category) = self.known.get_mut(event.category) {
            category.ids.insert(event.fingerprint, id);
        }
        Ok(id)
    }

    /// Forgets what it learned: after a failure, topics and schemas are looked at again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
    }
}
