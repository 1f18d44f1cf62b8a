//! Events become messages: to which topic, with which registry id.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Instant;

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
    /// Categories of which it is to be learned whether they can be published.
    wanted: BTreeSet<String>,
}

struct Category {
    to: Destination,
    ids: HashMap<Fingerprint, Result<SchemaId, String>>,
}

/// Why an event cannot become a message.
pub(crate) enum Obstacle {
    /// Its topic or its schema is in the way: it is held, and others are not.
    Refused(Refusal),
    /// It is not known yet, and what the page has is to be published first.
    Later,
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
            wanted: BTreeSet::new(),
        }
    }

    /// The message of an event, if its topic is ready. The first event of a schema asks the registry, but not after
    /// `until`.
    pub(crate) async fn message(
        &mut self,
        event: &OutboxEvent<'_>,
        until: Instant,
    ) -> Result<Message, Obstacle> {
        if !self.is_known(event.category).map_err(|failure| obstacle(failure, event))? {
            self.want(event.category);
            return Err(Obstacle::Later);
        }
        let category = &self.known[event.category];
        let id = match category.ids.get(&event.fingerprint) {
            Some(Ok(id)) => *id,
            Some(Err(reason)) => {
                return Err(Obstacle::Refused(refusal(Cause::Schema, reason.clone(), event)));
            }
            None if Instant::now() >= until => return Err(Obstacle::Later),
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

    /// Whether a category's topic is ready.
    fn is_known(&mut self, category: &str) -> Result<bool, Failure> {
        if self.known.contains_key(category) {
            return Ok(true);
        }
        if let Some(to) = self.topics.ready(category) {
            self.known.insert(category.to_owned(), Category { to, ids: HashMap::new() });
            return Ok(true);
        }
        self.topics.refused(category).map_or(Ok(false), Err)
    }

    /// Notes that a category is waited for, unless it is ready.
    pub(crate) fn want(&mut self, category: &str) {
        if !self.known.contains_key(category) && !self.wanted.contains(category) {
            self.wanted.insert(category.to_owned());
        }
    }

    /// Makes the topics ready that were waited for, all together, as far as that goes until then.
    pub(crate) async fn prepare(&mut self, until: Instant) -> Result<(), Failure> {
        let wanted = std::mem::take(&mut self.wanted);
        if wanted.is_empty() { Ok(()) } else { self.topics.prepare(wanted, until).await }
    }

    /// The same for given categories: of each that can be published or not, which of the two.
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

    /// Its view of topics, to watch them with.
    pub(crate) fn topics(&self) -> Topics {
        self.topics.clone()
    }

    /// Forgets what it learned: after a failure, topics and schemas are looked at again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.topics.forget();
    }

    /// Forgets which schemas were refused: they are asked for again. What can be published is kept.
    pub(crate) fn forget_refusals(&mut self) {
        for category in self.known.values_mut() {
            category.ids.retain(|_, id| id.is_ok());
        }
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
            (Kind::Stream, event.stream, Some(event.position.get()))
        }
    };
    Refusal { kind, name: name.to_owned(), cause, reason, position }
}
