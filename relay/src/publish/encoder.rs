//! Events become messages, with their topics and the registry ids of their schemas.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use annals_schemas::Fingerprint;
use annals_store::outbox::OutboxEvent;
use annals_store::{Position, Store};

use crate::config::Config;
use crate::model::event_format::WriterSchema;
use crate::model::message::{Destination, Message};
use crate::model::quarantine::{Cause, Kind, NewEntry};
use crate::publish::registry::{Asking, RegistryClient};
use crate::publish::schema_lookups::{LookupProgress, SchemaLookups};
use crate::publish::topics::CategoryTopics;
use crate::publish::topics_state::WantedCategories;
use crate::publish::uncompared::UncomparedTopics;
use crate::publish::writer_schemas::{SchemaKey, WriterSchemas};
use crate::report::failure::Failure;

/// How many schemas are asked for again at once. Lookups of other schemas have room beside them.
const CHECKS_MAX: usize = 8;

/// Turns events into messages. It caches topics and schema ids.
pub(crate) struct Encoder {
    topics: CategoryTopics,
    config: Arc<Config>,
    schemas: Arc<WriterSchemas>,
    lookups: SchemaLookups,
    known: HashMap<String, KnownCategory>,
    wanted: Wanted,
    /// The schema of a category whose id the registry did not give.
    without_id: HashMap<String, SchemaKey>,
}

/// What the events of a page need and is not ready.
#[derive(Default)]
pub(crate) struct Wanted {
    /// Categories whose topics are to be prepared.
    categories: WantedCategories,
    /// Schemas whose lookups have begun.
    schemas: HashSet<SchemaKey>,
}

impl Wanted {
    /// The number of categories that it is of.
    pub(crate) fn categories(&self) -> usize {
        let with_schemas: HashSet<&String> =
            self.schemas.iter().map(|schema| &schema.category).collect();
        let with_topics = self.categories.keys().filter(|name| !with_schemas.contains(name));
        with_schemas.len() + with_topics.count()
    }

    /// Only the topics.
    pub(crate) fn of_topics(self) -> Self {
        Self { schemas: HashSet::new(), ..self }
    }
}

struct KnownCategory {
    to: Destination,
    schemas: HashMap<Fingerprint, Result<WriterSchema, Refusal>>,
}

/// Why no event of a schema can be published.
struct Refusal {
    cause: Cause,
    reason: String,
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
    pub(crate) fn new(
        config: &Arc<Config>,
        store: &Store,
        registry: RegistryClient,
        uncompared: &Arc<UncomparedTopics>,
    ) -> Self {
        let schemas = Arc::new(WriterSchemas::new(config, store, registry));
        Self {
            topics: CategoryTopics::new(config, store, uncompared),
            config: Arc::clone(config),
            lookups: SchemaLookups::new(Arc::clone(&schemas)),
            schemas,
            known: HashMap::new(),
            wanted: Wanted::default(),
            without_id: HashMap::new(),
        }
    }

    /// The message of an event, if its topic and its schema are ready; else they are wanted.
    pub(crate) fn message(&mut self, event: &OutboxEvent<'_>) -> Result<Message, EncodeFailure> {
        if !self.is_known(event.category).map_err(|failure| encode_error(failure, event))?
            || !self.learn(event)?
        {
            self.want(event);
            return Err(EncodeFailure::NotReady);
        }
        let category = &self.known[event.category];
        let schema = match &category.schemas[&event.fingerprint] {
            Ok(schema) => schema,
            Err(Refusal { cause, reason }) => {
                let entry = new_entry(*cause, reason.clone(), event);
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

    /// Has an event's topic prepared and its schema looked up, unless they are ready.
    pub(crate) fn want(&mut self, event: &OutboxEvent<'_>) {
        let OutboxEvent { category, fingerprint, .. } = *event;
        let known = self.known.get(category);
        if known.is_some_and(|known| known.schemas.contains_key(&fingerprint)) {
            return;
        }
        if known.is_none() && !self.wanted.categories.contains_key(category) {
            self.wanted.categories.insert(category.to_owned(), event.position);
        }
        let key = self.key(event);
        if !self.wanted.schemas.contains(&key) {
            self.lookups.want(key.clone(), Asking::Page);
            self.wanted.schemas.insert(key);
        }
    }

    /// Whether an event's topic and its schema are ready.
    pub(crate) fn is_ready(&self, event: &OutboxEvent<'_>) -> bool {
        let known = self.known.get(event.category);
        let has_topic = known.is_some() || self.topics.ready(event.category).is_some();
        let has_schema = known.is_some_and(|of| of.schemas.contains_key(&event.fingerprint));
        has_topic
            && (has_schema || self.lookups.progress(&self.key(event)) == LookupProgress::Ended)
    }

    fn key(&self, event: &OutboxEvent<'_>) -> SchemaKey {
        let topic = match self.known.get(event.category) {
            Some(known) => Arc::clone(&known.to.topic),
            None => self.config.topic(event.category).into(),
        };
        let category = event.category.to_owned();
        SchemaKey { topic, category, fingerprint: event.fingerprint }
    }

    /// What is wanted since this was last called.
    pub(crate) fn take_wanted(&mut self) -> Wanted {
        std::mem::take(&mut self.wanted)
    }

    /// Begins to prepare what is wanted. Lookups of schemas have begun.
    pub(crate) fn begin_to_prepare(&self, wanted: &Wanted) {
        if !wanted.categories.is_empty() {
            self.topics.want(&wanted.categories);
        }
    }

    /// Prepares what is wanted, as far as that goes until then.
    pub(crate) async fn prepare(&self, wanted: &Wanted, until: Instant) -> Result<(), Failure> {
        let Wanted { categories, schemas } = wanted;
        if !categories.is_empty() {
            self.topics.prepare(categories, until).await?;
        }
        if schemas.is_empty() { Ok(()) } else { self.lookups.wait(schemas, until).await }
    }

    /// The part of it that is being prepared, without the topics of categories that were published
    /// before: these are ready again soon.
    pub(crate) fn unready(&self, wanted: Wanted) -> Wanted {
        let Wanted { categories, mut schemas } = wanted;
        schemas.retain(|key| self.lookups.progress(key) == LookupProgress::Pending);
        Wanted { categories: self.topics.unready(categories), schemas }
    }

    /// No page waits any longer for those of these that are not ready: their events are refused,
    /// with this reason if it is the topic.
    pub(crate) fn are_late(&self, late: &Wanted, reason: &str) {
        self.topics.are_late(&late.categories, reason);
        self.lookups.are_late(&late.schemas);
    }

    /// Begins to check the topics of quarantined categories. A record for a topic with too few
    /// replicas would end a transaction.
    pub(crate) fn check_topics(&self, categories: &BTreeSet<String>) {
        self.topics.suspect_some(categories);
        // Behind the categories whose events wait in front of others.
        let last = Position::ORIGIN.saturating_add(i64::MAX);
        self.topics.want(&categories.iter().map(|category| (category.clone(), last)).collect());
    }

    /// The result of the last check of a category's topic, if it is known: a refusal once.
    pub(crate) fn checked_topic(&self, category: &str) -> Option<Result<(), Failure>> {
        match self.topics.ready(category) {
            Some(_) => Some(Ok(())),
            None => self.topics.refused(category).map(Err),
        }
    }

    /// Whether a category that waits for the registry can be tried: the schema that it waits for
    /// has an id now, or is not known.
    pub(crate) fn has_schema_id(&self, category: &str) -> bool {
        let waits_for = self.without_id.get(category);
        waits_for.is_none_or(|key| self.lookups.progress(key) == LookupProgress::Ended)
    }

    /// Asks the registry again for the schemas that some categories wait for, in this order, and
    /// for some at once; returns the categories asked for.
    pub(crate) fn ask_again<'a>(
        &self,
        categories: impl Iterator<Item = &'a String>,
    ) -> Vec<&'a String> {
        let is_pending = |key: &&SchemaKey| self.lookups.progress(key) == LookupProgress::Pending;
        let room = CHECKS_MAX.saturating_sub(self.without_id.values().filter(is_pending).count());
        let with_keys = categories.filter_map(|of| Some((of, self.without_id.get(of)?)));
        let can_be_asked = |(_, key): &(&String, &SchemaKey)| match self.lookups.progress(key) {
            LookupProgress::Failed | LookupProgress::None => true,
            LookupProgress::Pending | LookupProgress::Ended => false,
        };
        let asked = with_keys.filter(can_be_asked).take(room).map(|(category, key)| {
            drop(self.lookups.take(key));
            self.lookups.want(key.clone(), Asking::Check);
            category
        });
        asked.collect()
    }

    /// Whether the registry did not answer when it was last asked.
    pub(crate) fn is_registry_unavailable(&self) -> bool {
        self.schemas.is_registry_unavailable()
    }

    /// Whether an event's schema is known, or refused; takes the result of its lookup.
    fn learn(&mut self, event: &OutboxEvent<'_>) -> Result<bool, EncodeFailure> {
        if self.known[event.category].schemas.contains_key(&event.fingerprint) {
            return Ok(true);
        }
        let key = self.key(event);
        let Some(found) = self.lookups.take(&key) else { return Ok(false) };
        let schema = found.map_err(|failure| encode_error(failure, event));
        let schema = match schema {
            Ok(schema) => Ok(schema),
            Err(EncodeFailure::Quarantine(entry)) if entry.cause == Cause::Registry => {
                self.without_id.insert(event.category.to_owned(), key);
                return Err(EncodeFailure::Quarantine(entry));
            }
            // The other events of the schema do not ask again.
            Err(EncodeFailure::Quarantine(NewEntry { cause, reason, .. })) => {
                Err(Refusal { cause, reason })
            }
            Err(other) => return Err(other),
        };
        self.without_id.remove(event.category);
        if let Some(category) = self.known.get_mut(event.category) {
            category.schemas.insert(event.fingerprint, schema);
        }
        Ok(true)
    }

    /// The topics that it uses.
    pub(crate) fn topics(&self) -> CategoryTopics {
        self.topics.clone()
    }

    /// Has the topics and schemas of some categories looked up again.
    pub(crate) fn forget_some(&mut self, categories: &BTreeSet<String>) {
        self.known.retain(|category, _| !categories.contains(category));
        self.topics.forget_some(categories);
    }

    /// Clears its caches: topics and schemas are looked up again.
    pub(crate) fn forget(&mut self) {
        self.known.clear();
        self.topics.forget();
        // Lookups under way end for themselves.
        self.lookups = SchemaLookups::new(Arc::clone(&self.schemas));
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
        Cause::Topic | Cause::Registry => (Kind::Category, event.category, None),
        Cause::Record | Cause::Schema | Cause::Event => {
            (Kind::Stream, event.stream, Some(event.position))
        }
    };
    NewEntry { kind, name: name.to_owned(), cause, reason, position }
}
