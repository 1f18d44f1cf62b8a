//! The topics of categories: claimed, made by declared policy, and looked at before they are first used, many at once.
//!
//! That is done beside the reader: a page waits for it as long as it may, and what was done is kept when the page ends.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use annals_store::{SchemaName, Store};
use sqlx::{PgPool, Row};
use tokio::sync::Notify;

use crate::claims_topic::Claims;
use crate::config::Config;
use crate::failure::Failure;
use crate::heard::locked;
use crate::kafka::{ByTopic, Desk};
use crate::kafka_failure::KafkaFailure;
use crate::message::Destination;
use crate::shell::in_a_thread;
use crate::topic_policy::{TopicFacts, TopicPlan, ensure_topics};

/// Topics that are in use are looked at so often: somebody may have added partitions, or claimed them.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// So many topics are made, or their settings read, in one request at most, with so many partitions.
const BATCH_TOPICS_MAX: usize = 100;
const BATCH_PARTITIONS_MAX: usize = 1_200;

/// Makes sure of topics.
#[derive(Clone)]
pub(crate) struct Topics {
    config: Arc<Config>,
    pool: PgPool,
    schema: SchemaName,
    state: Arc<Mutex<State>>,
    /// Told when the state has changed.
    news: Arc<Notify>,
    /// One at a time talks to Kafka.
    worker: Arc<tokio::sync::Mutex<Worker>>,
}

/// What is known, by category.
#[derive(Default)]
struct State {
    ready: HashMap<String, Destination>,
    refused: HashMap<String, Failure>,
    /// Those to be made ready, the ones under way included.
    wanted: BTreeSet<String>,
    /// Whether somebody makes them ready.
    is_at_work: bool,
    /// Why that came to an end.
    failure: Option<Failure>,
    /// Why this publication may not run any more.
    is_over: Option<Failure>,
    /// Those that are in use.
    used: BTreeSet<String>,
    /// What was said of topics, once each.
    said: HashSet<String>,
}

/// The way to Kafka, and what is claimed there.
struct Worker(Arc<Mutex<Connected>>);

struct Connected {
    desk: Option<Desk>,
    claims: Claims,
}

impl Topics {
    pub(crate) fn new(config: &Arc<Config>, store: &Store) -> Self {
        let connected = Connected { desk: None, claims: Claims::new(config) };
        let worker = Worker(Arc::new(Mutex::new(connected)));
        Self {
            config: Arc::clone(config),
            pool: store.pool().clone(),
            schema: store.schema().clone(),
            state: Arc::default(),
            news: Arc::default(),
            worker: Arc::new(tokio::sync::Mutex::new(worker)),
        }
    }

    /// Where a category's events go, if that is known: its topic is there, and this publication's.
    pub(crate) fn ready(&self, category: &str) -> Option<Destination> {
        locked(&self.state).ready.get(category).cloned()
    }

    /// Why a category is not published, if that is known. It is told once: the next time it is tried again.
    pub(crate) fn refused(&self, category: &str) -> Option<Failure> {
        locked(&self.state).refused.remove(category)
    }

    /// Why nothing may be published any more.
    pub(crate) fn over(&self) -> Option<Failure> {
        locked(&self.state).is_over.take()
    }

    /// Topics are looked at again before they are used.
    pub(crate) fn forget(&self) {
        let mut state = locked(&self.state);
        state.ready.clear();
        state.refused.clear();
    }

    /// Has categories made ready, and waits until they are, or are refused, but not beyond a time.
    ///
    /// # Errors
    /// A [`Failure`] that concerns them all.
    pub(crate) async fn prepare(
        &self,
        categories: BTreeSet<String>,
        until: Instant,
    ) -> Result<(), Failure> {
        self.want(&categories);
        loop {
            let news = self.news.notified();
            if let Some(outcome) = locked(&self.state).outcome(&categories) {
                return outcome;
            }
            if tokio::time::timeout_at(until.into(), news).await.is_err() {
                return Ok(());
            }
        }
    }

    fn want(&self, categories: &BTreeSet<String>) {
        let mut state = locked(&self.state);
        let new = categories.iter().filter(|category| !state.ready.contains_key(*category));
        let new: Vec<String> = new.cloned().collect();
        state.wanted.extend(new);
        if !state.wanted.is_empty() && !state.is_at_work {
            state.is_at_work = true;
            // A failure of earlier work that nobody waited for.
            state.failure = None;
            drop(tokio::spawn(self.clone().work()));
        }
    }

    /// Makes everything ready that is wanted.
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
                state.is_at_work = false;
                break;
            }
        }
        self.news.notify_waiters();
    }

    async fn make_ready(&self, categories: &[String]) -> Result<(), Failure> {
        let began = Instant::now();
        let worker = self.worker.lock().await;
        let by_topic: BTreeMap<String, &String> =
            categories.iter().map(|category| (self.config.topic(category), category)).collect();
        let topics: Vec<String> = by_topic.keys().cloned().collect();
        let (found, taken) = worker.look(&self.config, topics.clone()).await?;
        let found = Arc::new(found);
        let (mut ready, of) = (taken.len(), topics.len());
        let free: Vec<String> =
            topics.into_iter().filter(|topic| !taken.contains_key(topic)).collect();
        self.know(&by_topic, taken.into_iter().map(|(topic, failure)| (topic, Err(failure))));
        let size = BATCH_PARTITIONS_MAX / usize::from(self.config.topics.partitions.get());
        for some in free.chunks(size.clamp(1, BATCH_TOPICS_MAX)) {
            let made = worker.make(&self.config, some.to_vec(), Arc::clone(&found)).await?;
            let destinations = self.record(made).await?;
            self.know(&by_topic, destinations);
            ready += some.len();
            if of > BATCH_TOPICS_MAX {
                let seconds = began.elapsed().as_secs();
                tracing::info!(
                    event = "topics_prepared",
                    ready,
                    of,
                    seconds,
                    "making sure of topics"
                );
            }
        }
        Ok(())
    }

    /// Takes what came of some topics.
    fn know(
        &self,
        categories: &BTreeMap<String, &String>,
        made: impl IntoIterator<Item = (String, Result<Destination, Failure>)>,
    ) {
        let mut state = locked(&self.state);
        for (topic, made) in made {
            let Some(category) = categories.get(&topic).map(|category| (*category).clone()) else {
                continue;
            };
            state.wanted.remove(&category);
            match made {
                Ok(destination) => {
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
        self.news.notify_waiters();
    }

    /// Compares with how many partitions the topics had when they were first used.
    async fn record(
        &self,
        made: ByTopic<Result<TopicFacts, KafkaFailure>>,
    ) -> Result<Vec<(String, Result<Destination, Failure>)>, Failure> {
        let facts = made.iter().filter_map(|(topic, made)| {
            let facts = made.as_ref().ok()?;
            self.say(topic, facts);
            Some((topic.clone(), facts.partitions))
        });
        let recorded = self.recorded_partitions(facts.collect()).await?;
        let outcome = |(topic, made): (String, Result<TopicFacts, KafkaFailure>)| {
            let found = made.map_err(Failure::Kafka).map(|facts| facts.partitions);
            let recorded = recorded.get(&topic).copied();
            let destination = found.and_then(|found| destination(&topic, recorded, found));
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
        // Another relay may record them at this moment: what it has is seen the second time.
        while recorded.len() < topics.len() {
            let statement = include_str!("../sql/topic_partitions.sql");
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

    /// Looks at the topics that are in use, now and then, and calls `changed` when one is not as it was.
    pub(crate) async fn watch(self, changed: impl Fn()) {
        loop {
            tokio::time::sleep(LOOK_INTERVAL).await;
            let used: Vec<String> = locked(&self.state).used.iter().cloned().collect();
            let failure = self.make_ready(&used).await.err();
            if let Some(failure) = &failure {
                let error = failure as &dyn std::error::Error;
                tracing::debug!(error, "the topics in use are not looked at for the moment");
            }
            let mut state = locked(&self.state);
            state.is_over =
                failure.filter(|failure| failure.trouble().halts()).or(state.is_over.take());
            let refused = used.iter().filter(|category| state.refused.contains_key(*category));
            if refused.count() > 0 {
                // Whoever publishes finds it out, too, and says so.
                state.refused.clear();
                changed();
            }
        }
    }

    fn say(&self, topic: &str, facts: &TopicFacts) {
        if facts.created {
            tracing::info!(
                event = "topic_created",
                topic,
                partitions = facts.partitions,
                "created topic"
            );
        }
        for difference in &facts.differences {
            if locked(&self.state).said.insert(format!("{topic}: {difference}")) {
                tracing::warn!(
                    event = "topic_differs",
                    topic,
                    setting = difference.setting,
                    found = difference.found,
                    planned = difference.planned,
                    "a setting of the topic is not as planned: {}",
                    difference.consequence
                );
            }
        }
    }
}

impl State {
    /// What came of making categories ready, once that is known; a failure is told once.
    fn outcome(&mut self, categories: &BTreeSet<String>) -> Option<Result<(), Failure>> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        categories.is_disjoint(&self.wanted).then_some(Ok(()))
    }

    /// What is to be made ready next; nothing ends the work.
    fn next(&mut self) -> Vec<String> {
        self.is_at_work = !self.wanted.is_empty();
        self.wanted.iter().cloned().collect()
    }
}

/// Where a topic's events go, unless it has other partitions than it had.
fn destination(topic: &str, recorded: Option<i32>, found: i32) -> Result<Destination, Failure> {
    let recorded = recorded.unwrap_or(found);
    if recorded != found {
        return Err(Failure::Repartitioned { topic: topic.to_owned(), recorded, found });
    }
    Ok(Destination { topic: topic.into(), partitions: recorded })
}

/// How many partitions each topic has, as far as it is there.
type Found = ByTopic<Result<i32, KafkaFailure>>;

impl Worker {
    /// Claims topics, and looks which are there; those that are somebody else's, with the reason.
    async fn look(
        &self,
        config: &Arc<Config>,
        topics: Vec<String>,
    ) -> Result<(Found, ByTopic<Failure>), Failure> {
        self.in_a_thread(config, move |desk, claims| {
            let taken = claims.claim(desk, &topics)?;
            let free = topics.iter().filter(|topic| !taken.contains_key(*topic));
            let free: Vec<&str> = free.map(String::as_str).collect();
            let found = if free.is_empty() { Found::new() } else { desk.partitions_of(&free)? };
            Ok((found, taken))
        })
        .await
    }

    /// Makes topics that are not there, and reads the settings of all of them.
    async fn make(
        &self,
        config: &Arc<Config>,
        topics: Vec<String>,
        found: Arc<Found>,
    ) -> Result<ByTopic<Result<TopicFacts, KafkaFailure>>, Failure> {
        let of = Arc::clone(config);
        self.in_a_thread(config, move |desk, _claims| {
            let plan = |topic: &String| TopicPlan::events(&of.topics, topic);
            let plans: Vec<TopicPlan> = topics.iter().map(plan).collect();
            Ok(ensure_topics(desk, &of.kafka.bootstrap_servers, &plans, &found)?)
        })
        .await
    }

    async fn in_a_thread<T: Send + 'static>(
        &self,
        config: &Arc<Config>,
        work: impl FnOnce(&Desk, &mut Claims) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (connected, config) = (Arc::clone(&self.0), Arc::clone(config));
        in_a_thread("topics", move || {
            let mut connected = locked(&connected);
            let Connected { desk, claims } = &mut *connected;
            let kept = match desk.take() {
                Some(desk) => desk,
                None => Desk::open(&config)?,
            };
            let done = work(&kept, claims);
            // After a failure, connections are made anew.
            *desk = done.is_ok().then_some(kept);
            done
        })
        .await
    }
}
