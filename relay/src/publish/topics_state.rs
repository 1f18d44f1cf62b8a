//! The state of the topics of categories: ready, refused, to be prepared.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use annals_store::Position;

use crate::model::message::Destination;
use crate::report::failure::Failure;
use crate::report::kafka_failure::KafkaFailure;

/// The first and the longest pause before a topic is tried again that Kafka refused.
const REFUSAL_PAUSE_MIN: Duration = Duration::from_secs(5);
const REFUSAL_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How long partitions without a leader or replicas are looked for after records were not
/// acknowledged in time.
const SUSPICION: Duration = Duration::from_secs(60);

/// Categories, with the positions of their first events: the first are prepared first.
pub(crate) type WantedCategories = HashMap<String, Position>;

/// The state of topics, by category.
#[derive(Default)]
pub(super) struct TopicsState {
    pub(super) ready: HashMap<String, Destination>,
    pub(super) refused: HashMap<String, Failure>,
    /// The categories to be prepared, those under way included, with the positions of their first
    /// events.
    pub(super) wanted: WantedCategories,
    /// Whether a task prepares them.
    pub(super) is_working: bool,
    /// Why that task has ended.
    pub(super) failure: Option<Failure>,
    /// Why this publication may not run any more.
    pub(super) publication_refused: Option<Failure>,
    /// Topics that Kafka has refused when their records were sent.
    send_refusals: HashMap<String, SendRefusal>,
    /// Until when partitions without a leader or replicas are looked for.
    suspected_until: Option<Instant>,
    /// The categories whose topics had such partitions, or can have them.
    pub(super) unavailable: HashSet<String>,
    /// The categories in use.
    pub(super) used: BTreeSet<String>,
    /// The differences that were logged, once each.
    pub(super) reported: HashSet<String>,
}

/// A topic that Kafka has refused when its records were sent. It can only be tried, and each try
/// ends a transaction: hence pauses.
struct SendRefusal {
    failure: KafkaFailure,
    until: Instant,
    pause: Duration,
}

impl TopicsState {
    /// The result of preparing categories, once it is known; a failure is returned once.
    pub(super) fn outcome(&mut self, categories: &WantedCategories) -> Option<Result<(), Failure>> {
        if let Some(failure) = self.failure.take() {
            return Some(Err(failure));
        }
        let is_pending = |category: &String| self.wanted.contains_key(category);
        (!categories.keys().any(is_pending)).then_some(Ok(()))
    }

    /// The categories to prepare next; none ends the task.
    pub(super) fn next(&mut self) -> Vec<String> {
        self.is_working = !self.wanted.is_empty();
        let mut wanted: Vec<(&String, &Position)> = self.wanted.iter().collect();
        wanted.sort_by_key(|(category, position)| (**position, *category));
        wanted.into_iter().map(|(category, _)| category.clone()).collect()
    }

    /// Kafka has refused a category's topic when its records were sent.
    pub(super) fn refuse(&mut self, category: String, failure: KafkaFailure) {
        let now = Instant::now();
        let before = self.send_refusals.get(&category).filter(|of| now < of.until + of.pause);
        let pause = before.map_or(REFUSAL_PAUSE_MIN, |of| (of.pause * 2).min(REFUSAL_PAUSE_MAX));
        self.ready.remove(&category);
        self.send_refusals.insert(category, SendRefusal { failure, until: now + pause, pause });
    }

    /// The failure with which Kafka has refused a category's topic, if it is too early to try
    /// again.
    pub(super) fn send_refused(&mut self, category: &str) -> Option<Failure> {
        let now = Instant::now();
        self.send_refusals.retain(|_, refusal| now < refusal.until + refusal.pause);
        let refusal = self.send_refusals.get(category).filter(|of| now < of.until)?;
        Some(refusal.failure.clone().into())
    }

    /// Records were not acknowledged in time.
    pub(super) fn suspect(&mut self) {
        self.suspected_until = Some(Instant::now() + SUSPICION);
    }

    /// Whether partitions that cannot be written to are looked for in a category's topic.
    pub(super) fn is_suspected(&self, category: &str) -> bool {
        let is_suspected = self.suspected_until.is_some_and(|until| Instant::now() < until);
        is_suspected || self.unavailable.contains(category)
    }
}
