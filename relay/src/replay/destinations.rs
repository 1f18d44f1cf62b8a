//! Where the records of a replay go: topics, partitions, and the registry ids of schemas.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use annals_schemas::Fingerprint;
use annals_store::Store;
use annals_store::outbox::OutboxEvent;

use crate::config::Config;
use crate::kafka::claims_topic::ClaimsTopic;
use crate::kafka::topic_admin::TopicAdmin;
use crate::kafka::topic_plan::TopicPlan;
use crate::kafka::topic_setup::ensure_topic_at;
use crate::model::event_format::WriterSchema;
use crate::model::message::{Destination, Message};
use crate::publish::registry::{Asking, RegistryClient};
use crate::publish::writer_schemas::{SchemaKey, WriterSchemas};
use crate::replay::plan::Plan;
use crate::replay::{ReplayError, Result};
use crate::report::failure::Failure;
use crate::report::threads::in_a_thread;

/// The topics of a replay, ready to be written to, and the ids of its schemas.
pub(super) struct Destinations {
    writers: WriterSchemas,
    /// By category.
    topics: BTreeMap<String, Destination>,
    /// The own topic of each category: schemas are registered under its name, also for a side
    /// topic.
    own: BTreeMap<String, Arc<str>>,
    schemas: HashMap<(String, Fingerprint), WriterSchema>,
}

impl Destinations {
    /// Claims and creates the topics of a plan, with the partition counts that they had.
    pub(super) async fn prepare(
        config: &Arc<Config>,
        store: &Store,
        plan: &Plan,
        recorded: BTreeMap<String, i32>,
    ) -> Result<Self> {
        let categories = plan.parts.iter().map(|part| part.category().to_owned());
        let own: BTreeMap<String, Arc<str>> = categories
            .map(|category| {
                let topic = Arc::<str>::from(config.topic(&category));
                (category, topic)
            })
            .collect();
        let to: BTreeMap<String, Arc<str>> = match &plan.target {
            None => own.clone(),
            Some(target) => {
                let target = Arc::<str>::from(target.as_str());
                own.keys().map(|category| (category.clone(), Arc::clone(&target))).collect()
            }
        };
        let (of, progress) = (Arc::clone(config), config.replays_topic());
        let topics = in_a_thread("topics", move || ready(&of, to, &recorded, &progress)).await?;
        let registry = RegistryClient::connect(config, store)?;
        let writers = WriterSchemas::new(config, store, registry);
        Ok(Self { writers, topics, own, schemas: HashMap::new() })
    }

    /// The message of an event.
    pub(super) async fn message(
        &mut self,
        event: &OutboxEvent<'_>,
        replay: i64,
    ) -> Result<Message> {
        let key = (event.category.to_owned(), event.fingerprint);
        if !self.schemas.contains_key(&key) {
            let topic = self.own.get(event.category).cloned().unwrap_or_default();
            let category = event.category.to_owned();
            let wanted = SchemaKey { topic, category, fingerprint: event.fingerprint };
            let schema = self.writers.of(&wanted, Asking::Check).await?;
            self.schemas.insert(key.clone(), schema);
        }
        let unreadable = |reason: String| ReplayError::Unreadable {
            stream: event.stream.to_owned(),
            position: event.position,
            reason,
        };
        let Some(to) = self.topics.get(event.category) else {
            return Err(unreadable("its category is not part of the replay".to_owned()));
        };
        let message = Message::new(event, to, &self.schemas[&key], self.writers.format());
        Ok(message.map_err(|error| unreadable(error.to_string()))?.replayed(replay))
    }
}

/// Claims and creates topics. Blocks.
fn ready(
    config: &Arc<Config>,
    to: BTreeMap<String, Arc<str>>,
    recorded: &BTreeMap<String, i32>,
    progress: &str,
) -> Result<BTreeMap<String, Destination>, Failure> {
    let admin = TopicAdmin::open(config)?;
    let mut names: Vec<String> = to.values().map(ToString::to_string).collect();
    names.push(progress.to_owned());
    names.sort();
    names.dedup();
    let refused = ClaimsTopic::new(config).claim(&admin, &names)?;
    if let Some(failure) = refused.into_values().next() {
        return Err(failure);
    }
    ensure_topic_at(&admin, config, &TopicPlan::replays(&config.topics, progress))?;
    let mut ready: BTreeMap<String, Destination> = BTreeMap::new();
    for (category, topic) in to {
        let mut plan = TopicPlan::events(&config.topics, &topic);
        let known = recorded.get(&*topic).copied();
        plan.partitions = known.unwrap_or(plan.partitions);
        let facts = ensure_topic_at(&admin, config, &plan)?;
        let found = facts.partitions;
        // Each stream stays in the partition that it had, also if others were added.
        let partitions = known.unwrap_or(found);
        if found < partitions {
            let (topic, recorded) = (topic.to_string(), partitions);
            return Err(Failure::Repartitioned { topic, recorded, found });
        }
        let batch_bytes_max = facts.batch_bytes_max;
        ready.insert(category, Destination { topic, partitions, batch_bytes_max });
    }
    Ok(ready)
}
