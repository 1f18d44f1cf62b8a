//! The topics of categories: claimed, created by the configured policy, and checked before they are
//! first used, many at once.
//!
//! A task beside the reader does that: a page waits for it up to a deadline, and the task continues
//! after that.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annals_store::{SchemaName, Store};
use sqlx::{PgPool, Row};
use tokio::sync::Notify;

use crate::config::Config;
use crate::kafka::topic_admin::ByTopic;
use crate::kafka::topic_plan::{REQUEST_TOPICS_MAX, TopicFacts, topics_per_request};
use crate::model::message::Destination;
use crate::publish::topic_worker::{FoundPartitions, Worker, destination};
use crate::publish::topics_state::{TopicsState, WantedCategories};
use crate::publish::uncompared::UncomparedTopics;
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;
use crate::report::threads::locked;
use crate::state::topic_ends::records_of;

/// The interval at which topics in use are checked: an operator may have added partitions, or
/// another store claimed them.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Prepares topics.
#[derive(Clone)]
pub(crate) struct CategoryTopics {
    config: Arc<Config>,
    pool: PgPool,
    schema: SchemaName,
    pub(super) state: Arc<Mutex<TopicsState>>,
    /// Notified when the state has changed.
    changed: Arc<Notify>,
    uncompared: Arc<UncomparedTopics>,
    /// One task at a time uses the connection to Kafka.
    worker: Arc<tokio::sync::Mutex<Worker>>,
}

impl CategoryTopics {
    pub(crate) fn new(
        config: &Arc<Config>,
        store: &Store,
        uncompared: &Arc<UncomparedTopics>,
    ) -> Self {
        Self {
            config: Arc::clone(config),
            uncompared: Arc::clone(uncompared),
            pool: store.pool().clone(),
            schema: store.schema().clone(),
            state: Arc::default(),
            changed: Arc::default(),
            worker: Arc::new(tokio::sync::Mutex::new(Worker::new(config))),
        }
    }

    /// The topic of a category, if it is ready: it exists, and this publication has claimed it.
    pub(crate) fn ready(&self, category: &str) -> Option<Destination> {
        locked(&self.state).ready.get(category).cloned()
    }

    /// Why a category cannot be published, if that is known. Returned once: after that it is tried
    /// again.
    pub(crate) fn refused(&self, category: &str) -> Option<Failure> {
        locked(&self.state).refused.remove(category)
    }

    /// Why this publication may not run any more.
    pub(crate) fn publication_refused(&self) -> Option<Failure> {
        self.uncompared.refused().or_else(|| locked(&self.state).publication_refused.take())
    }

    /// Has topics checked again before they are used.
    pub(crate) fn forget(&self) {
        let mut state = locked(&self.state);
        state.ready.clear();
        state.refused.clear();
    }

    /// Has the topics of some categories checked again before they are used.
    pub(crate) fn forget_some(&self, categories: &BTreeSet<String>) {
        let mut state = locked(&self.state);
        for category in categories {
            state.ready.remove(category);
            state.refused.remove(category);
        }
    }

    /// Kafka has refused a category's topic when its records were sent: it is not ready for a
    /// while.
    pub(crate) fn refuse(&self, category: String, failure: KafkaFailure) {
        locked(&self.state).refuse(category, failure);
    }

    /// Records were not acknowledged in time: topics that cannot be written to are looked for.
    pub(crate) fn suspect(&self) {
        locked(&self.state).suspect();
    }

    /// Has partitions without a leader or replicas looked for in the topics of some categories,
    /// before they are ready.
    pub(crate) fn suspect_some(&self, categories: &BTreeSet<String>) {
        locked(&self.state).unavailable.extend(categories.iter().cloned());
    }

    /// No page waits any longer for those of these categories that are not ready: they are refused,
    /// with this reason. Their preparation goes on.
    pub(crate) fn are_late(&self, categories: &WantedCategories, reason: &str) {
        let mut state = locked(&self.state);
        for category in categories.keys() {
            if !state.ready.contains_key(category) && !state.refused.contains_key(category) {
                let (topic, reason) = (self.config.topic(category), reason.to_owned());
                let late = KafkaFailure::TopicUnavailable { topic, reason };
                state.refused.insert(category.clone(), late.into());
            }
        }
    }

    /// Those of these categories that are being prepared, and were never ready before.
    pub(crate) fn unready(&self, mut categories: WantedCategories) -> WantedCategories {
        let state = locked(&self.state);
        let is_new = |category: &String| !state.used.contains(category);
        categories.retain(|category, _| state.wanted.contains_key(category) && is_new(category));
        categories
    }

    /// Prepares categories, and waits until they are ready or refused, or until a deadline.
    ///
    /// # Errors
    /// A [`Failure`] that concerns all of them.
    pub(crate) async fn prepare(
        &self,
        categories: &WantedCategories,
        until: Instant,
    ) -> Result<(), Failure> {
        self.want(categories);
        loop {
            let changed = self.changed.notified();
            if let Some(outcome) = locked(&self.state).outcome(categories) {
                return outcome;
            }
            if tokio::time::timeout_at(until.into(), changed).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Begins to prepare categories.
    pub(crate) fn want(&self, categories: &WantedCategories) {
        let mut state = locked(&self.state);
        for (category, position) in categories {
            if !state.ready.contains_key(category) {
                state.wanted.entry(category.clone()).or_insert(*position);
            }
        }
        if !state.is_working {
            // The failure of an earlier task that no page waited for.
            state.failure = None;
            state.is_working = !state.wanted.is_empty();
            if state.is_working {
                drop(tokio::spawn(self.clone().work()));
            }
        }
    }

    /// Prepares all wanted categories.
    async fn work(self) {
        loop {
            let wanted = locked(&self.state).next();
            if wanted.is_empty() {
                break;
            }
            if let Err(failure) = self.make_ready(&wanted).await {
                let mut state = locked(&self.state);
                state.failure = Some(failure);
                state.wanted.clear();
                state.is_working = false;
                break;
            }
        }
        self.changed.notify_waiters();
    }

    async fn make_ready(&self, categories: &[String]) -> Result<(), Failure> {
        let began = Instant::now();
        let worker = self.worker.lock().await;
        let by_topic: BTreeMap<String, &String> =
            categories.iter().map(|category| (self.config.topic(category), category)).collect();
        let topics: Vec<String> =
            categories.iter().map(|category| self.config.topic(category)).collect();
        let of_publication = (&*self.config.publication(), &topics[..]);
        let records = records_of(&self.pool, &self.schema, of_publication).await?;
        let (found, mut refused) =
            worker.claim_and_find(&self.config, topics.clone(), records).await?;
        let found = Arc::new(found);
        refused.extend(self.send_refused(categories));
        refused.extend(
            topics
                .iter()
                .filter_map(|topic| Some((topic.clone(), self.uncompared.failure(topic)?))),
        );
        refused.extend(self.unavailable(&worker, &by_topic, &found).await?);
        let (mut ready, of) = (refused.len(), topics.len());
        let free: Vec<String> =
            topics.into_iter().filter(|topic| !refused.contains_key(topic)).collect();
        refused.values().for_each(|failure| self.log_lost(failure));
        self.learn(&by_topic, refused.into_iter().map(|(topic, failure)| (topic, Err(failure))));
        for some in free.chunks(topics_per_request(&self.config.topics)) {
            let made = worker.make(&self.config, some.to_vec(), Arc::clone(&found)).await?;
            let destinations = self.record(made).await?;
            self.learn(&by_topic, destinations);
            ready += some.len();
            if of > REQUEST_TOPICS_MAX {
                let seconds = began.elapsed().as_secs();
                tracing::info!(event = "topics_prepared", ready, of, seconds, "preparing topics");
            }
        }
        Ok(())
    }

    /// The topics of these categories that Kafka has refused when their records were sent, if it is
    /// too early to try them again.
    fn send_refused(&self, categories: &[String]) -> ByTopic<Failure> {
        let mut state = locked(&self.state);
        let refused =
            |category: &String| Some((self.config.topic(category), state.send_refused(category)?));
        categories.iter().filter_map(refused).collect()
    }

    /// The topics with partitions that have no leader or too few replicas, if there is a reason to
    /// look for them.
    async fn unavailable(
        &self,
        worker: &Worker,
        by_topic: &BTreeMap<String, &String>,
        found: &Arc<FoundPartitions>,
    ) -> Result<ByTopic<Failure>, Failure> {
        let is_wanted = |topic: &String| {
            by_topic.get(topic).is_some_and(|of| locked(&self.state).is_suspected(of))
        };
        let topics: Vec<String> = found.keys().filter(|topic| is_wanted(topic)).cloned().collect();
        if topics.is_empty() {
            return Ok(ByTopic::new());
        }
        let unavailable = worker.unavailable(&self.config, topics.clone()).await?;
        let mut state = locked(&self.state);
        for topic in &topics {
            let Some(category) = by_topic.get(topic) else { continue };
            if unavailable.contains_key(topic) {
                state.unavailable.insert((*category).clone());
            } else {
                state.unavailable.remove(*category);
            }
        }
        let failure = |(topic, reason): (String, String)| {
            (topic.clone(), KafkaFailure::TopicUnavailable { topic, reason }.into())
        };
        Ok(unavailable.into_iter().map(failure).collect())
    }

    /// Takes the results for some topics.
    fn learn(
        &self,
        categories: &BTreeMap<String, &String>,
        made: impl IntoIterator<Item = (String, Result<Destination, Failure>)>,
    ) {
        let mut state = locked(&self.state);
        for (topic, made) in made {
            let Some(category) = categories.get(&topic).map(|category| (*category).clone()) else {
                continue;
            };
            let is_wanted = state.wanted.remove(&category).is_some();
            match made {
                // It is said as a failure of the preparation, and the topic is tried again.
                Err(failure) if failure.policy().quarantines.is_none() => {
                    state.failure = is_wanted.then_some(failure).or(state.failure.take());
                }
                Ok(destination) => {
                    state.refused.remove(&category);
                    state.used.insert(category.clone());
                    state.ready.insert(category, destination);
                }
                Err(failure) => {
                    state.ready.remove(&category);
                    state.used.remove(&category);
                    state.refused.insert(category, failure);
                }
            }
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Records the partition counts of new topics, and compares those of others with the recorded
    /// ones.
    async fn record(
        &self,
        made: ByTopic<Result<TopicFacts, KafkaFailure>>,
    ) -> Result<Vec<(String, Result<Destination, Failure>)>, Failure> {
        let facts = made.iter().filter_map(|(topic, made)| {
            let facts = made.as_ref().ok()?;
            self.log(topic, facts);
            Some((topic.clone(), facts.partitions))
        });
        let recorded = self.recorded_partitions(facts.collect()).await?;
        let outcome = |(topic, made): (String, Result<TopicFacts, KafkaFailure>)| {
            let recorded = recorded.get(&topic).copied();
            let destination = made.map_err(Failure::Kafka).and_then(|facts| {
                let recorded = recorded.unwrap_or(facts.partitions);
                self.log_added(&topic, recorded, facts.partitions);
                destination(&topic, recorded, &facts)
            });
            (topic, destination)
        };
        Ok(made.into_iter().map(outcome).collect())
    }

    async fn recorded_partitions(
        &self,
        found: BTreeMap<String, i32>,
    ) -> Result<BTreeMap<String, i32>, Failure> {
        let action = "record the partitions of topics";
        let (topics, partitions): (Vec<String>, Vec<i32>) = found.into_iter().unzip();
        let mut recorded = BTreeMap::new();
        // Another relay may record them at this moment: the second query sees its rows.
        while recorded.len() < topics.len() {
            let statement = include_str!("../../sql/topic_partitions.sql");
            let rows = sqlx::query(self.schema.statement(statement))
                .bind(&topics)
                .bind(&partitions)
                .fetch_all(&self.pool)
                .await
                .map_err(Failure::database(action))?;
            for row in rows {
                let topic: String = row.try_get("topic").map_err(Failure::database(action))?;
                let count = row.try_get("partitions").map_err(Failure::database(action))?;
                recorded.insert(topic, count);
            }
        }
        Ok(recorded)
    }

    /// Checks the topics in use at an interval, and calls `changed` when one is refused.
    pub(crate) async fn watch(self, changed: impl Fn()) {
        loop {
            tokio::time::sleep(CHECK_INTERVAL).await;
            let used: Vec<String> = locked(&self.state).used.iter().cloned().collect();
            let failure = self.make_ready(&used).await.err();
            if let Some(failure) = &failure {
                let error = failure.in_full();
                tracing::debug!(error, "cannot check the topics in use");
            }
            let mut state = locked(&self.state);
            state.publication_refused = failure
                .filter(|failure| failure.class().halts())
                .or(state.publication_refused.take());
            let refused = used.iter().filter(|category| state.refused.contains_key(*category));
            if refused.count() > 0 {
                // The next page that uses the topic meets the refusal, and reports it.
                state.refused.clear();
                changed();
            }
        }
    }
}
